// Reading elements of a line, V channels at a time, and dividing indices.
#pragma once

#include <cstring>

#include "../common/types.h"
#include "../common/vector.h"
#include "axis.h"

namespace cnnkernels::depthwise_conv {

CNN_DEVICE Index extent(const FastDivide& d) { return static_cast<Index>(d.divisor); }

template <class T, int V>
CNN_DEVICE Vector<Accumulator<T>, V> widened(const Vector<T, V>& values) {
  Vector<Accumulator<T>, V> wide;
#pragma unroll
  for (int v = 0; v < V; ++v) wide[v] = widen(values[v]);
  return wide;
}

CNN_DEVICE bool is_finite(float x) { return x - x == 0; }
CNN_DEVICE bool is_finite(double x) { return x - x == 0; }

// What stands at `from`, zeros where it is not `there`. Elements of 16 bits are chosen two to a register:
// chosen for themselves, each would be merged with a zero.
template <int V, class T>
CNN_DEVICE Vector<T, V> load_or_zeros(bool there, const T* __restrict__ from) {
  if constexpr (V > 1 && sizeof(T) == 2) {
    Vector<std::uint32_t, V / 2> words{};
    if (there) words = load<V / 2>(reinterpret_cast<const std::uint32_t*>(from));
    Vector<T, V> values;
    memcpy(&values, &words, sizeof(values));
    return values;
  } else {
    return there ? load<V>(from) : Vector<T, V>{};
  }
}

// Element i of a line, zero outside.
template <int V, class T>
CNN_DEVICE Vector<T, V> element(const Axis& axis, const T* __restrict__ line, std::int64_t step, Index i) {
  return load_or_zeros<V>(axis.inside(i), line + i * step);
}

// Elements [first, first + kWindow) of a line, zeros outside. One address is computed; the others are one
// step further each.
template <int V, int kWindow, class T, class Step>
CNN_DEVICE void read_window(Vector<T, V> (&window)[kWindow], const Axis& axis, const T* __restrict__ line,
                            Step step, Index first) {
  const T* const from = line + std::int64_t(first) * step;
#pragma unroll
  for (int i = 0; i < kWindow; ++i)
    window[i] = load_or_zeros<V>(axis.inside(first + i), from + std::int64_t(i) * step);
}

}  // namespace cnnkernels::depthwise_conv
