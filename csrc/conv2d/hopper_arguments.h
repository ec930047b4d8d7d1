// What the kernel for Hopper is told: tensor maps, and numbers that turn a tile into coordinates. Made on the
// host for every call, a few hundred nanoseconds a map; passed by value, so a CUDA graph holds them.
#pragma once

#include <vector>

#include "../common/fast_divide.h"
#include "../ptx/tensor_map.h"
#include "hopper.h"

namespace cnnkernels::conv2d::hopper {

// Runs of a stage (hopper.h) are swizzled within themselves, the 128-byte rows of other blocks within those.
constexpr Swizzle swizzle_of(int span) {
  return span == 32 ? Swizzle::span32 : span == 64 ? Swizzle::span64 : Swizzle::span128;
}
inline constexpr Swizzle kSwizzle = swizzle_of(kRowBytes);
inline constexpr int kBlock = 64;  // rows or columns of a block that is copied, or stored, at once

// One axis of the taps: tap j is read at the window's place + offset + j * offset_step, and is the filter's
// row (or column) filter + j * filter_step.
struct Taps {
  std::int16_t count = 1, offset = 0, offset_step = 0, filter = 0, filter_step = 0;
};

// Pixels that take the same taps: all of them, or a phase of backward_input. Pixel (q, p, n) has its window's
// first tap at w + q * stride_w, h + p * stride_h.
struct Phase {
  std::int32_t first_tile = 0, row_tiles = 0;  // a cluster's count as one
  FastDivide slice_tiles;                      // the tiles of one group (of one part of the sum)
  std::int32_t pixels = 0;
  FastDivide width, height;
  std::int32_t w = 0, h = 0;
  Taps s, r;
  std::int64_t first = 0;  // the element of the result at its pixel (0, 0, 0)
};

// The result where TMA does not store it, phases of a stride and outputs with a residual or an activation:
// elements from one pixel to the next.
struct Spread {
  std::int64_t q = 0, p = 0, n = 0;
};

template <int Phases>
struct Arguments {
  static constexpr int kPhases = Phases;

  TensorMap windows[Phases];  // of the input; of the error in backward_input
  TensorMap other;            // the filter; the error in backward_weight
  TensorMap result;
  Phase phase[Phases];

  std::int32_t phases = 1, tiles = 0;
  std::int32_t column_tiles = 0;
  FastDivide band_tiles;  // of a band of kBand row tiles
  FastDivide groups;
  std::int32_t rows = 0;          // of backward_weight's result: filters of a group
  std::int32_t filter_width = 1;  // taps of a row of the filter
  std::int32_t columns = 0;       // channels of a group of the result; backward_weight: of the input
  std::int32_t span = kRowBytes;
  std::int32_t chunks = 0;  // runs of channels that a tap takes; backward_weight: column blocks a tap takes
  std::int32_t steps = 0;   // backward_weight: stages of pixels in all, and in each part
  std::int32_t steps_per_part = 0;
  std::int32_t group_channels = 0;  // from one group's windows to the next's
  std::int32_t stride_w = 1, stride_h = 1, images = 0;
  bool in_parts = false;   // backward_weight: fp32 sums of each part
  bool pointwise = false;  // windows are rows of a matrix
  bool store_by_tma = true;
  Spread spread;
  Epilogue epilogue;     // of the forward
  void* data = nullptr;  // where `spread` counts from
};

// Row tiles that go together: while a wave of them runs, each filter is read for all of them from the cache.
inline constexpr int kBand = 16;
// Of one launch; a stride that has more takes several.
inline constexpr int kMostPhases = 16;

using ForwardArguments = Arguments<1>;
using BackwardInputArguments = Arguments<kMostPhases>;
using BackwardWeightArguments = Arguments<1>;

ForwardArguments forward_arguments(const Problem& problem, const Tile& tile, const void* input,
                                   const void* weight, const Epilogue& epilogue, void* output);
// One a launch.
std::vector<BackwardInputArguments> backward_input_arguments(const Problem& problem, const Tile& tile,
                                                             const void* grad_output, const void* weight,
                                                             void* grad_input);
// result: [part][filter][tap][channel] of fp32, or grad_weight itself where there is one part.
BackwardWeightArguments backward_weight_arguments(const Problem& problem, const Tile& tile, int parts,
                                                  const void* grad_output, const void* input, void* result);

}  // namespace cnnkernels::conv2d::hopper
