// What the kernels on dp4a are told: a thread makes a strip of outputs along q for a run of four filters, and
// a block some runs of as many strips.
#pragma once

#include "../common/fast_divide.h"
#include "../int8/epilogue.cuh"
#include "int8_conv.h"

namespace cnnkernels::int8_conv {

inline constexpr int kThreads = 256;
inline constexpr int kMostLanes = 32;  // runs of filters in a block

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

// A thread's strip: outputs [n, p, q and on] of four filters from `first` on.
struct Strip {
  int lane;  // among the block's runs of filters
  std::int32_t first_of_block, first;
  std::uint32_t n, p;
  std::int32_t q;
  bool live;  // false: there is none for this thread
};

template <int kLength, int kThreads>
CNN_DEVICE Strip strip_of_thread(const Strips& d) {
  const int thread = static_cast<int>(threadIdx.x), slot = thread / d.lanes;
  Strip at;
  at.lane = thread & (d.lanes - 1);
  std::uint32_t strip_block, strip_of_row;
  const std::uint32_t filter_block = d.strip_blocks.divmod(blockIdx.x, strip_block);
  at.first_of_block = static_cast<std::int32_t>(filter_block) * d.lanes * int8::kRun;
  at.first = at.first_of_block + at.lane * int8::kRun;
  const std::uint32_t strip = strip_block * (kThreads / d.lanes) + slot;
  at.live = at.first < d.k && strip < d.strips;
  at.n = d.rows_of_image.divmod(d.strips_of_row.divmod(strip, strip_of_row), at.p);
  at.q = static_cast<std::int32_t>(strip_of_row) * kLength;
  return at;
}

// dp4a multiplies signed bytes: unsigned ones are taken for signed, 128 less, and so is their zero point.
struct AsSigned {
  std::uint32_t flip, fill;  // fill: what is outside the image, before it is flipped
  std::int32_t zero_point;

  CNN_DEVICE explicit AsSigned(const Strips& d)
      : flip(d.unsigned_input ? 0x80808080u : 0),
        fill(0x01010101u * static_cast<std::uint8_t>(d.zero_point)),
        zero_point(d.unsigned_input ? d.zero_point - 128 : d.zero_point) {}
};

using Sums = Vector<std::int32_t, int8::kRun>;

// The end of a strip, for all threads of a block: `memory`, which had the filters, takes the sums, so that
// one epilogue serves a strip in a loop. `count`: filters of the thread.
template <int kThreads, int kLength>
CNN_DEVICE void finish_strip(const Strips& d, const Strip& at, const int8::Epilogue& epilogue,
                             const std::int32_t (&sums)[kLength][int8::kRun],
                             const std::int32_t (&weight_sums)[int8::kRun], std::int32_t zero_point,
                             int count, Sums* memory, void* output) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kLength; ++j) {
    Sums of_output;
#pragma unroll
    for (int e = 0; e < int8::kRun; ++e)
      of_output[e] = int8::wrapping_subtract(sums[j][e], zero_point, weight_sums[e]);
    store(memory[j * kThreads + thread].element, of_output);
  }
  if (!at.live) return;
  const std::int64_t first = (std::int64_t(at.n) * d.p + at.p) * d.q + at.q;
  const int8::Rows rows{0, min(kLength, d.q - at.q), 1, first, first * d.k + at.first, d.k};
  int8::finish(epilogue, int8::Columns(epilogue, at.first, count, d.vectors), rows, output,
               [&](int j) { return memory[j * kThreads + thread]; });
}

}  // namespace cnnkernels::int8_conv
