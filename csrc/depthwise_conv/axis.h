// One axis of a convolution as its result sees it: which element of the source each tap puts into a result.
#pragma once

#include "../common/device.h"
#include "../common/index.h"

namespace cnnkernels::depthwise_conv {

// forward (and what backward_weight reads):  i = o stride - pad + t dilation
// backward_input (transposed):               i = (o + pad - t dilation) / stride, where that divides
//
// What lies outside the source is zeros, and a product by them is a product: NaN where a tap is not finite.
// What a stride passes over is none.
inline constexpr Index kPassed = INT32_MIN;

struct Axis {
  Index source_size, result_size, taps;
  Index stride, pad, dilation;
  FastDivide by_stride;
  bool transposed;
  std::uint8_t unused[3] = {};

  // Where tap t of result o reads, -1 if nowhere inside the source.
  CNN_DEVICE Index source(Index o, Index t) const {
    Index i = o * stride - pad + t * dilation;
    if (transposed) {
      const Index reach = o + pad - t * dilation;
      if (reach < 0) return -1;
      std::uint32_t rest;
      i = static_cast<Index>(by_stride.divmod(static_cast<std::uint32_t>(reach), rest));
      if (rest != 0) return -1;
    }
    return inside(i) ? i : -1;
  }
  // The same, also outside the source; kPassed where the stride does not divide.
  CNN_DEVICE Index place(Index o, Index t) const {
    if (!transposed) return o * stride - pad + t * dilation;
    const Index reach = o + pad - t * dilation;
    std::uint32_t rest;
    const auto i =
        static_cast<Index>(by_stride.divmod(static_cast<std::uint32_t>(reach < 0 ? -reach : reach), rest));
    return rest != 0 ? kPassed : reach < 0 ? -i : i;
  }
  // Bounds of what any tap of result o reads; they may lie outside the source.
  CNN_HOST_DEVICE Index lowest(Index o) const {
    if (!transposed) return o * stride - pad;
    const Index reach = o + pad - (taps - 1) * dilation;
    return reach < 0 ? 0 : static_cast<Index>(by_stride.quotient(static_cast<std::uint32_t>(reach)));
  }
  CNN_HOST_DEVICE Index highest(Index o) const {
    if (!transposed) return o * stride - pad + (taps - 1) * dilation;
    return static_cast<Index>(by_stride.quotient(static_cast<std::uint32_t>(o + pad)));
  }
  // What results [begin, end) read lies in elements from first_reached on; `reached` is the axis over those
  // alone.
  CNN_DEVICE Index first_reached(Index begin) const { return max(lowest(begin), Index(0)); }
  CNN_DEVICE Axis reached(Index begin, Index end) const {
    const Index first = first_reached(begin);
    return cut(first, max(min(highest(end - 1) + 1, source_size) - first, Index(0)));
  }
  // The axis over elements [first, first + size) of the source alone.
  CNN_DEVICE Axis cut(Index first, Index size) const {
    Axis axis = *this;
    axis.source_size = size;
    axis.pad += transposed ? -first * stride : first;
    return axis;
  }
  CNN_DEVICE bool inside(Index i) const {
    return static_cast<std::uint32_t>(i) < static_cast<std::uint32_t>(source_size);
  }
};

// How a strip of results and a chunk of taps meet the source, for the strides known at compile time (dilation
// 1). Result o of the strip and tap t of the chunk meet at element i of a window that starts at first(...).

template <int kStride>
struct Forward {
  static constexpr bool kSparse = kStride > 1, kTransposed = false;
  static constexpr CNN_HOST_DEVICE int window(int strip, int chunk) { return (strip - 1) * kStride + chunk; }
  static constexpr CNN_HOST_DEVICE bool meet(int o, int t, int i, int) { return i == o * kStride + t; }
  // Which element is met as number `turn`: taps ascend, so that a result's order of summation is the same by
  // any chunk.
  static constexpr CNN_HOST_DEVICE int turn(int turn, int) { return turn; }
  static CNN_DEVICE bool can_start(Index) { return true; }
  static CNN_DEVICE Index first(const Axis& axis, Index o, Index t, int) {
    return o * kStride - axis.pad + t;
  }
};

// The gradient of a stride of 2: half of the taps reach a result. Strips start where o + pad is even and
// chunks at even taps, so which half is known at compile time.
struct BackwardByTwo {
  static constexpr bool kSparse = false, kTransposed = true;
  static constexpr CNN_HOST_DEVICE int lead(int chunk) {
    return chunk / 2;
  }  // elements before the one that tap 0 of result 0 meets
  static constexpr CNN_HOST_DEVICE int window(int strip, int chunk) {
    return (strip - 1) / 2 + lead(chunk) + 1;
  }
  static constexpr CNN_HOST_DEVICE bool meet(int o, int t, int i, int chunk) {
    return 2 * (i - lead(chunk)) == o - t;
  }
  static constexpr CNN_HOST_DEVICE int turn(int turn, int window) { return window - 1 - turn; }
  static CNN_DEVICE bool can_start(Index t) { return t % 2 == 0; }
  static CNN_DEVICE Index first(const Axis& axis, Index o, Index t, int chunk) {
    return (o + axis.pad - t) / 2 - lead(chunk);
  }
};

// Any stride and dilation, forward or backward: taps one at a time.
struct Anyhow {
  static constexpr bool kSparse = false, kTransposed = false;
};

// Results of a strip: more of them share what is read, as long as sums and elements fit into registers. A
// `sparse` pattern reads more than one element for each.
constexpr CNN_HOST_DEVICE int strip_of(int vector, int chunk, bool sparse) {
  return (chunk > 0 && sparse) || (vector == 8 && chunk <= 3) ? 4 : 8;
}
inline int strip_of(int vector, int chunk, const Axis& axis) {
  return strip_of(vector, chunk, !axis.transposed && axis.stride > 1);
}

}  // namespace cnnkernels::depthwise_conv
