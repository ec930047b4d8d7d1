// What becomes of V windows at once (common/window.h): their sums, in fp32 (fp64).
#pragma once

#include "../common/index.h"
#include "../common/types.h"
#include "../common/vector.h"

namespace cnnkernels::pool {

// kTogether_ elements of a row are on their way at once.
template <class T, int V, int kTogether_>
struct Sum {
  static constexpr int kTogether = kTogether_;
  using Element = Vector<T, V>;

  Accumulator<T> total[V] = {};

  CNN_DEVICE Vector<T, V> nothing() const {
    Vector<T, V> zeros;
#pragma unroll
    for (int j = 0; j < V; ++j) zeros[j] = narrow<T>(0);
    return zeros;
  }
  CNN_DEVICE void update(const Vector<T, V>& values, Index) {
#pragma unroll
    for (int j = 0; j < V; ++j) total[j] += widen(values[j]);
  }
  CNN_DEVICE void combine_lanes(int distance) {
#pragma unroll
    for (int j = 0; j < V; ++j) total[j] += __shfl_xor_sync(0xffffffffu, total[j], distance);
  }
  CNN_DEVICE void divide(Accumulator<T> divisor) {
#pragma unroll
    for (int j = 0; j < V; ++j) total[j] /= divisor;
  }
};

}  // namespace cnnkernels::pool
