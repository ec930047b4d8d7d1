// Reading elements of a line, V channels at a time, and dividing indices.
#pragma once

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

// Element i of a line, zero outside.
template <int V, class T>
CNN_DEVICE Vector<T, V> element(const Axis& axis, const T* __restrict__ line, std::int64_t step, Index i) {
  return axis.inside(i) ? load<V>(line + i * step) : Vector<T, V>{};
}

}  // namespace cnnkernels::depthwise_conv
