// What the kernels of gradients share: sums of several lanes, and tiles of elements that share windows.
#pragma once

#include "../common/index.h"
#include "../common/types.h"
#include "../common/vector.h"

namespace cnnkernels::pool {

// Where windows overlap, a thread takes kTile x kTile neighbours, which share most of theirs.
inline constexpr Index kTile = 2;

inline std::int64_t tiles(std::int64_t size) { return (size + kTile - 1) / kTile; }

// Gradients as they are summed.
template <class T, int V>
struct Gradients {
  Accumulator<T> of[V];
  CNN_DEVICE explicit Gradients(const Vector<T, V>& grad) {
#pragma unroll
    for (int j = 0; j < V; ++j) of[j] = widen(grad[j]);
  }
  CNN_DEVICE void divide(Accumulator<T> divisor) {
#pragma unroll
    for (int j = 0; j < V; ++j) of[j] /= divisor;
  }
};

template <class T, int V>
CNN_DEVICE Vector<T, V> rounded(const Accumulator<T> (&sum)[V]) {
  Vector<T, V> out;
#pragma unroll
  for (int j = 0; j < V; ++j) out[j] = narrow<T>(sum[j]);
  return out;
}

}  // namespace cnnkernels::pool
