// What becomes of V windows at once (common/window.h): the largest element so far, and the place where each
// was met.
#pragma once

#include <cmath>
#include <cstring>

#include "../common/types.h"
#include "../common/vector.h"
#include "../ptx/packed.cuh"

namespace cnnkernels::pool {

template <class T>
CNN_DEVICE T minus_infinity() {
  return narrow<T>(-static_cast<Accumulator<T>>(INFINITY));
}

// Strictly greater, so that the first maximum stays. A NaN is always taken, and only another NaN replaces it.
template <class T, class Place, int V, class = void>
struct Maximum {
  static constexpr bool kIdempotent = true;
  static constexpr int kTogether = 1;
  using Element = Vector<T, V>;

  T best[V];
  std::int32_t place[V];

  CNN_DEVICE explicit Maximum(std::int32_t first_place) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      best[j] = minus_infinity<T>();
      place[j] = first_place;
    }
  }
  CNN_DEVICE void update(const Vector<T, V>& values, std::int32_t at) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const auto x = widen(values[j]);
      const bool wins = x > widen(best[j]) || x != x;
      best[j] = wins ? values[j] : best[j];
      place[j] = wins ? at : place[j];
    }
  }
  CNN_DEVICE Vector<T, V> values() const {
    Vector<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = best[j];
    return out;
  }
  CNN_DEVICE Vector<Place, V> places() const {
    Vector<Place, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = static_cast<Place>(place[j]);
    return out;
  }
};

// 16-bit elements, two in a register with their two 16-bit places in another: half the instructions.
template <class T, class Place, int V>
struct Maximum<T, Place, V, std::enable_if_t<sizeof(T) == 2 && sizeof(Place) <= 2 && V % 2 == 0>> {
  static constexpr bool kIdempotent = true;
  static constexpr int kTogether = 1;
  using Element = Vector<T, V>;

  std::uint32_t best[V / 2], place[V / 2];

  CNN_DEVICE explicit Maximum(std::int32_t first_place) {
#pragma unroll
    for (int k = 0; k < V / 2; ++k) {
      best[k] = twice(minus_infinity<T>().bits);
      place[k] = twice(first_place);
    }
  }
  CNN_DEVICE void update(const Vector<T, V>& values, std::int32_t at) {
    std::uint32_t pair[V / 2];
    std::memcpy(pair, &values, sizeof pair);
#pragma unroll
    for (int k = 0; k < V / 2; ++k) {
      const std::uint32_t wins = greater_or_nan<T>(pair[k], best[k]);
      best[k] = choose(wins, pair[k], best[k]);
      place[k] = choose(wins, twice(at), place[k]);
    }
  }
  CNN_DEVICE Vector<T, V> values() const {
    Vector<T, V> out;
    std::memcpy(&out, best, sizeof out);
    return out;
  }
  CNN_DEVICE Vector<Place, V> places() const {
    Vector<Place, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = static_cast<Place>(place[j / 2] >> (16 * (j % 2)));
    return out;
  }

 private:
  static CNN_DEVICE std::uint32_t twice(std::uint32_t half) { return half * 0x10001u; }
};

}  // namespace cnnkernels::pool
