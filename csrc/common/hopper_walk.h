// How kernels for Hopper walk over windows of an image by rows of filters: what their producers and consumers
// are told of it, and what TMA demands. Plain C++: launchers fill it in, kernels read it.
#pragma once

#include "../ptx/tensor_map.h"
#include "fast_divide.h"
#include "geometry.h"

namespace cnnkernels::hopper {

inline constexpr int kRowBytes = 128;   // of the reduction that a stage holds for each row and column
inline constexpr int kCapability = 90;  // the only one whose binary has the kernels
inline constexpr std::int64_t kProcessors = 132;  // of an H100 or H200
inline constexpr int kBlock = 64;  // rows or columns of a block that is copied, or stored, at once
// Row tiles that go together: while a wave of them runs, each filter is read for all of them from the cache.
inline constexpr int kBand = 16;

// A stage's 128 bytes of the reduction are one run of channels of one tap; two or four shorter ones, each of
// a tap of its own, where channels are few. So 16 channels fill a stage with four taps, not a quarter of it.
inline constexpr int kSpans[] = {128, 64, 32};

inline std::int64_t stages_of(std::int64_t taps, std::int64_t row_bytes, int span) {
  return ceil_div(taps * ceil_div(row_bytes, span), kRowBytes / span);
}

// Bytes of a run: those that need the fewest stages, and that divide a group's channels where there are
// several groups, so that no stage reaches into the next one's. 0: there are none.
inline int span_for(std::int64_t row_bytes, std::int64_t taps, bool grouped) {
  int best = 0;
  for (const int span : kSpans) {
    if (grouped && row_bytes % span != 0) continue;
    if (best == 0 || stages_of(taps, row_bytes, span) < stages_of(taps, row_bytes, best)) best = span;
  }
  return best;
}

// Runs are swizzled within themselves, the 128-byte rows of other blocks within those.
constexpr Swizzle swizzle_of(int span) {
  return span == 32 ? Swizzle::span32 : span == 64 ? Swizzle::span64 : Swizzle::span128;
}
inline constexpr Swizzle kSwizzle = swizzle_of(kRowBytes);

// Is each window one pixel, and each pixel a window's? Then windows are rows of a plain matrix.
inline bool pointwise(const Conv2dGeometry& g) {
  return g.r == 1 && g.s == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 && g.pad_w == 0 &&
         g.p == g.h && g.q == g.w;
}

// The places a window's first tap takes along one axis, from `lower` to `upper` past the last pixel, and the
// farthest tap: what TMA's im2col mode is told in 8 bits each.
struct Corners {
  std::int64_t lower, upper, farthest;
  bool fit() const {
    return lower >= -128 && lower <= 127 && upper >= -128 && upper <= 127 && farthest <= 255;
  }
};
inline Corners corners_of_input(std::int64_t size, std::int64_t taps, std::int64_t places,
                                std::int64_t stride, std::int64_t pad, std::int64_t dilation) {
  return {-pad, (places - 1) * stride + 1 - size - pad, (taps - 1) * dilation};
}
inline Corners corners_of_rows(const Conv2dGeometry& g) {
  return corners_of_input(g.h, g.r, g.p, g.stride_h, g.pad_h, g.dilation_h);
}
inline Corners corners_of_columns(const Conv2dGeometry& g) {
  return corners_of_input(g.w, g.s, g.q, g.stride_w, g.pad_w, g.dilation_w);
}

inline constexpr int kMostStride = 8;  // TMA's

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

// Tensor maps, and numbers that turn a tile into coordinates. Made on the host for every call, a few hundred
// nanoseconds a map; passed by value, so a CUDA graph holds them.
template <int Phases>
struct Walk {
  static constexpr int kPhases = Phases;

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
};

}  // namespace cnnkernels::hopper
