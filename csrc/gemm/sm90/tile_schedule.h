// The tiles of products of an image's windows by rows of filters: what launchers tell the tile scheduler of
// kernels for Hopper, their producers and consumers.
#pragma once

#include "../../ptx/tensor_map.h"
#include "../../common/fast_divide.h"
#include "limits.h"

namespace cnnkernels::gemm::sm90 {

// Runs are swizzled within themselves, the 128-byte rows of other blocks within those.
constexpr Swizzle swizzle_of(int span) {
  return span == 32 ? Swizzle::span32 : span == 64 ? Swizzle::span64 : Swizzle::span128;
}
inline constexpr Swizzle kSwizzle = swizzle_of(kRowBytes);

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
  std::int32_t unused = 0;
  std::int64_t first = 0;  // the element of the result at its pixel (0, 0, 0)
};

// What a struct of maps is filled up with (launch.h) after so many bytes that are not of maps, which CUDA
// aligns to 64 bytes, or from version 13 on to 128.
constexpr std::size_t to_next_map(std::size_t bytes) {
  return alignof(TensorMap) - bytes % alignof(TensorMap);
}

// Tensor maps, and numbers that turn a tile into coordinates. Made on the host for every call, a few hundred
// nanoseconds a map; passed by value, so a CUDA graph holds them.
template <int Phases>
struct TileSchedule {
  TensorMap windows[Phases];  // of an image
  TensorMap other;            // the filters, by default
  Phase phase[Phases];

  std::int32_t phases = 1, tiles = 0;
  std::int32_t column_tiles = 0;
  FastDivide band_tiles;  // of a band of kBand row tiles
  FastDivide groups;
  std::int32_t filter_width = 1;  // taps of a row of the filter
  std::int32_t columns = 0;       // of a group
  std::int32_t chunks = 0;        // runs of channels that a tap takes
  std::int32_t steps = 0;         // where the reduction is summed in parts: stages in all, and in each part
  std::int32_t steps_per_part = 0;
  std::int32_t group_channels = 0;  // from one group's windows to the next's
  std::int32_t stride_w = 1, stride_h = 1, images = 0;
  bool pointwise = false;  // windows are rows of a matrix
  std::uint8_t unused[to_next_map(Phases * sizeof(Phase) + 73)] = {};
};

}  // namespace cnnkernels::gemm::sm90
