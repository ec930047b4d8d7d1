// The tensors of a convolution as operands of the implicit GEMM (conv/gemm.h).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "../common/geometry.h"
#include "gemm.h"

namespace cnnkernels::conv {

// Elements from one index to the next of each axis. A filter's n is k, its h and w are r and s.
struct Strides {
  std::int64_t n, c, h, w;
};

inline Strides strides(Layout layout, std::int64_t c, std::int64_t h, std::int64_t w) {
  return layout == Layout::nhwc ? Strides{c * h * w, 1, w * c, c} : Strides{c * h * w, h * w, w, 1};
}

// Places visited along the two axes of an image: how many, and how far apart.
struct Visits {
  std::int64_t count_h, count_w, step_h, step_w;
};

// The lowest and highest coordinate that any window touches on one axis.
struct Reach {
  std::int64_t low, high;
  Reach(std::int64_t origin, std::int64_t count, std::int64_t step, std::int64_t tap_count,
        std::int64_t tap_step)
      : low(origin + std::min<std::int64_t>(0, (tap_count - 1) * tap_step)),
        high(origin + (count - 1) * step + std::max<std::int64_t>(0, (tap_count - 1) * tap_step)) {
    constexpr std::int64_t kFarthest = std::int64_t(1) << 30;
    if (low <= -kFarthest || high >= kFarthest)
      throw std::invalid_argument("a convolution's windows must stay within 2^30 rows and columns");
  }
};

// Windows of an image: element (position, tap) is the image's at origin + position's steps + tap's steps,
// zero outside. The channel is part of the tap. It is its fastest digit where channels lie together and its
// slowest where planes do.
struct Windows {
  Axis position, tap;
  Place origin;
  std::int32_t height = 1, width = 1;
};

inline Windows windows(Layout layout, const Strides& image, std::int64_t n, std::int64_t channels,
                       std::int64_t height, std::int64_t width, std::int64_t origin_h, std::int64_t origin_w,
                       const Visits& positions, const Visits& taps) {
  const Reach h(origin_h, positions.count_h, positions.step_h, taps.count_h, taps.step_h);
  const Reach w(origin_w, positions.count_w, positions.step_w, taps.count_w, taps.step_w);
  const bool inside = h.low >= 0 && h.high < height && w.low >= 0 && w.high < width;

  // A view that never leaves its image needs no coordinates, and its digits join into longer contiguous runs.
  const auto rows = [&](std::int64_t size, std::int64_t step) {
    return Digit{size, step * image.h, inside ? 0 : static_cast<std::int32_t>(size > 1 ? step : 0), 0};
  };
  const auto columns = [&](std::int64_t size, std::int64_t step) {
    return Digit{size, step * image.w, 0, inside ? 0 : static_cast<std::int32_t>(size > 1 ? step : 0)};
  };
  const Digit q = columns(positions.count_w, positions.step_w), p = rows(positions.count_h, positions.step_h);
  const Digit s = columns(taps.count_w, taps.step_w), r = rows(taps.count_h, taps.step_h);
  const Digit c{channels, image.c};

  Windows view;
  view.position = Axis{q, p, Digit{n, image.n}};
  view.tap = layout == Layout::nhwc ? Axis{c, s, r} : Axis{s, r, c};
  view.origin.offset = origin_h * image.h + origin_w * image.w;
  if (!inside) {
    view.origin.h = static_cast<std::int32_t>(origin_h);
    view.origin.w = static_cast<std::int32_t>(origin_w);
    view.height = static_cast<std::int32_t>(height);
    view.width = static_cast<std::int32_t>(width);
  }
  return view;
}

// What the windows of a convolution's input see beyond it: a border that is read through the index, or none
// where they do not reach beyond or see zeros. `why` says why a border must be copied instead, else it is
// null.
inline Border border_of(const Problem& problem, const char*& why) {
  const ConvGeometry& g = problem.geometry;
  const Reach h(-g.pad_h, g.p, g.stride_h, g.r, g.dilation_h),
      w(-g.pad_w, g.q, g.stride_w, g.s, g.dilation_w);
  why = nullptr;
  if (g.padding_mode == PaddingMode::zeros || (h.low >= 0 && h.high < g.h && w.low >= 0 && w.high < g.w))
    return {};
  const std::int64_t rows = h.high - h.low + 1, columns = w.high - w.low + 1;
  const std::int64_t before = std::max(-h.low, -w.low),
                     after = std::max({h.high - g.h, w.high - g.w, std::int64_t(-1)}) + 1;
  const Strides x = strides(problem.layout, g.c, g.h, g.w);
  const auto once_around = [&](const Reach& reach, std::int64_t size) {
    const std::int64_t most = g.padding_mode == PaddingMode::reflect ? size - 1 : size;
    return g.padding_mode == PaddingMode::replicate || (reach.low >= -most && reach.high < size + most);
  };
  if (!once_around(h, g.h) || !once_around(w, g.w))
    why = "the padding is larger than the image";
  else if (rows + columns > kBorderEntries)
    why = "the padded image has more rows and columns than the table of a border";
  else if ((before + after + g.h + g.w) * std::max(x.h, x.w) >= std::int64_t(1) << 31)
    why = "its pixels may lie more than 2^31 elements from where they are repeated";
  if (why != nullptr) return {};
  const auto axis = [](const Reach& reach, std::int64_t count, std::int64_t size, std::int64_t stride) {
    return BorderAxis{static_cast<std::int32_t>(reach.low), static_cast<std::int32_t>(count),
                      static_cast<std::int32_t>(size), static_cast<std::int32_t>(stride)};
  };
  return {g.padding_mode, axis(h, rows, g.h, x.h), axis(w, columns, g.w, x.w)};
}

// Gives the operand that is a convolution's input its border.
inline void add_border(const Problem& problem, Operand& x) {
  const char* why;
  x.border = border_of(problem, why);
  if (why != nullptr) throw std::invalid_argument(std::string("conv2d: a border must be copied: ") + why);
  if (!x.border.exists()) return;
  x.origin.h -= x.border.h.first;
  x.origin.w -= x.border.w.first;
  x.height = x.border.h.count;
  x.width = x.border.w.count;
}

// An axis over taps and channels in the order windows() uses.
inline Axis tap_axis(Layout layout, const Digit& channel, const Digit& s, const Digit& r) {
  return layout == Layout::nhwc ? Axis{channel, s, r} : Axis{s, r, channel};
}

}  // namespace cnnkernels::conv
