// The tensors of a depthwise convolution, in either layout, as its kernels walk over them.
#pragma once

#include <utility>

#include "../common/errors.h"
#include "axis.h"
#include "depthwise_conv.h"

namespace cnnkernels::depthwise_conv {

// Elements from one index to the next; strips run along a, lines lie along b.
struct View {
  std::int64_t image, channel, a, b;
};

// `along_row`: strips run along the rows, lines are rows; else strips run down columns.
inline View view(Layout layout, bool along_row, std::int64_t channels, std::int64_t height,
                 std::int64_t width) {
  const bool nhwc = layout == Layout::nhwc;
  const std::int64_t column = nhwc ? channels : 1, row = width * column;
  return {channels * height * width, nhwc ? 1 : height * width, along_row ? column : row,
          along_row ? row : column};
}

// Strides and dilations that step over all of the source are cut to shorter ones that do, so that no product
// of coordinates overflows. What a stride divides (axis.h) stays: a dilation loses multiples of the stride,
// and a stride that no distance reaches divides none but 0.
inline Axis axis(std::int64_t size, std::int64_t results, std::int64_t taps, std::int64_t stride,
                 std::int64_t pad, std::int64_t dilation) {
  const std::int64_t reach = size + pad;
  if (dilation > reach) dilation = reach + (dilation - reach) % stride;
  if (double(stride) > double(reach) + double(taps) * double(dilation)) stride = reach + taps * dilation;
  if (double(size) + double(pad) + double(results) * double(stride) + double(taps) * double(dilation) >=
      0x1p31)
    throw_invalid_argument("depthwise_conv2d: rows or columns pass 2^31");
  const auto index = [](std::int64_t value) { return static_cast<Index>(value); };
  return {index(size), index(results),  index(taps),        index(stride),
          index(pad),  index(dilation), FastDivide(stride), false};
}

inline Axis rows_axis(const ConvGeometry& g) {
  return axis(g.h, g.p, g.r, g.stride_h, g.pad_h, g.dilation_h);
}
inline Axis columns_axis(const ConvGeometry& g) {
  return axis(g.w, g.q, g.s, g.stride_w, g.pad_w, g.dilation_w);
}

// The filter's elements: tap (a, b) of filter f is filter[f size + origin + a step_a + b step_b].
struct Taps {
  std::int64_t size, origin;
  Index step_a, step_b;
};

inline Taps filter_taps(const ConvGeometry& g, bool along_row) {
  const Index row = static_cast<Index>(g.s);
  return along_row ? Taps{g.r * g.s, 0, 1, row} : Taps{g.r * g.s, 0, row, 1};
}

// The same pairs of elements, asked from the other end.
inline Axis transposed(Axis axis) {
  std::swap(axis.source_size, axis.result_size);
  axis.transposed = true;
  return axis;
}

}  // namespace cnnkernels::depthwise_conv
