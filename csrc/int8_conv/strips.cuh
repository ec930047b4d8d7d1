// What the kernels on dp4a are told: a thread makes a strip of outputs along q for a run of four filters, and
// a block some runs of as many strips.
#pragma once

#include "../common/fast_divide.h"
#include "../int8/epilogue.cuh"
#include "int8_conv.h"

namespace cnnkernels::int8_conv {

struct Strips {
  const std::uint8_t *input = nullptr, *weight = nullptr;
  std::int32_t h = 0, w = 0, c = 0, k = 0, r = 0, s = 0, p = 0, q = 0;
  std::int32_t stride_h = 0, stride_w = 0, pad_h = 0, pad_w = 0, dilation_h = 0, dilation_w = 0;
  FastDivide strips_of_row;     // strips in a row of the output
  FastDivide rows_of_image;     // P
  FastDivide strip_blocks;      // blocks along the strips, for each of those along the filters
  std::uint32_t strips = 0;     // of all images
  int lanes = 1;                // runs of filters a block takes, a power of two
  std::int32_t zero_point = 0;  // of the input
  bool unsigned_input = false, vectors = false;
  std::uint8_t unused[6] = {};
};

inline Strips strips_of(const Problem& problem, const void* input, const void* weight,
                        const int8::Epilogue& epilogue, const void* output, int most_lanes) {
  const ConvGeometry& g = problem.geometry;
  const auto narrow32 = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
  Strips d;
  d.input = static_cast<const std::uint8_t*>(input);
  d.weight = static_cast<const std::uint8_t*>(weight);
  d.h = narrow32(g.h), d.w = narrow32(g.w), d.c = narrow32(g.c), d.k = narrow32(g.k);
  d.r = narrow32(g.r), d.s = narrow32(g.s), d.p = narrow32(g.p), d.q = narrow32(g.q);
  d.stride_h = narrow32(g.stride_h), d.stride_w = narrow32(g.stride_w);
  d.pad_h = narrow32(g.pad_h), d.pad_w = narrow32(g.pad_w);
  d.dilation_h = narrow32(g.dilation_h), d.dilation_w = narrow32(g.dilation_w);
  d.rows_of_image = FastDivide(g.p);
  while (d.lanes < most_lanes && d.lanes * int8::kRun < g.k) d.lanes *= 2;
  d.zero_point = epilogue.zero_point_a.value;
  d.unsigned_input = problem.unsigned_input;
  d.vectors = int8::whole_runs(epilogue, output, g.k);
  return d;
}

// Cuts the outputs into strips, and says how many blocks of so many threads make them.
inline dim3 cut(Strips& d, std::int64_t images, int strip, int threads) {
  const std::int64_t of_row = ceil_div(d.q, strip), strips = images * d.p * of_row;
  d.strips = static_cast<std::uint32_t>(strips);
  d.strips_of_row = FastDivide(of_row);
  const std::int64_t along = ceil_div(strips, threads / d.lanes);
  d.strip_blocks = FastDivide(along);
  return dim3(static_cast<unsigned>(along * ceil_div(d.k, d.lanes * int8::kRun)));
}

}  // namespace cnnkernels::int8_conv
