// What kernels for Hopper can walk over, and in what stages: pure functions of the geometry, on the host.
#pragma once

#include "../../common/geometry.h"

namespace cnnkernels::gemm::sm90 {

inline constexpr int kRowBytes = 128;  // of the reduction that a stage holds for each row and column
inline constexpr int kBlock = 64;      // rows or columns of a block that is copied, or stored, at once
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

// Is each window one pixel, and each pixel a window's? Then windows are rows of a plain matrix.
inline bool pointwise(const ConvGeometry& g) {
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
inline Corners corners_of_rows(const ConvGeometry& g) {
  return corners_of_input(g.h, g.r, g.p, g.stride_h, g.pad_h, g.dilation_h);
}
inline Corners corners_of_columns(const ConvGeometry& g) {
  return corners_of_input(g.w, g.s, g.q, g.stride_w, g.pad_w, g.dilation_w);
}

inline constexpr int kMostStride = 8;  // TMA's

}  // namespace cnnkernels::gemm::sm90
