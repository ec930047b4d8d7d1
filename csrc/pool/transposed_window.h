// Which windows hold an element of one axis of the input, and at which place: what the backward visits.
// Elements count from the start of the padding: x = window * stride + place * dilation.
#pragma once

#include <numeric>
#include <utility>

#include "../common/index.h"

namespace cnnkernels::pool {

// Dilation 1: the windows that hold any of some successive elements are successive too.
struct TransposedAxis {
  Index size, places, windows, pad;
  FastDivide by_stride;

  TransposedAxis(std::int64_t size, std::int64_t places, std::int64_t windows, std::int64_t stride,
                 std::int64_t pad)
      : size(static_cast<Index>(size)),
        places(static_cast<Index>(places)),
        windows(static_cast<Index>(windows)),
        pad(static_cast<Index>(pad)),
        by_stride(stride) {}

  CNN_DEVICE Index stride() const { return value(by_stride); }
  // The first window that reaches x or beyond, and one past the last that starts at x or before.
  CNN_DEVICE Index first(Index x) const { return x < places ? 0 : (x - places) / by_stride + 1; }
  CNN_DEVICE Index end(Index x) const {
    const Index started = x / by_stride + 1;
    return started < windows ? started : windows;
  }
};

// Any dilation: place * dilation + window * stride = x is a linear Diophantine equation. With
// g = gcd(stride, dilation) it has solutions only where g divides x; they are then stride / g places and
// dilation / g windows apart, and place = x / g * inverse modulo stride / g, where inverse * dilation / g = 1
// modulo stride / g. So exactly the windows that hold x are visited.
struct DilatedTransposedAxis {
  Index pad, places, windows, window_step, inverse;
  FastDivide by_stride, by_dilation, by_common, by_place_step;

  DilatedTransposedAxis(std::int64_t places, std::int64_t windows, std::int64_t stride, std::int64_t pad,
                        std::int64_t dilation)
      : pad(static_cast<Index>(pad)),
        places(static_cast<Index>(places)),
        windows(static_cast<Index>(windows)),
        by_stride(stride),
        by_dilation(dilation) {
    const std::int64_t common = std::gcd(stride, dilation);
    window_step = static_cast<Index>(dilation / common);
    inverse = static_cast<Index>(invert(dilation / common, stride / common));
    by_common = FastDivide(common);
    by_place_step = FastDivide(stride / common);
  }

  CNN_DEVICE Index place_step() const { return value(by_place_step); }

  struct First {
    Index place, window;  // the first window that holds x, and x's place there; place < 0 if there is none
  };
  CNN_DEVICE First first(Index x) const {
    Index rest = x;
    if (split(rest, by_common) != 0) return {-1, 0};
    const Index residue = multiply(modulo(rest), inverse);
    const Index reach = x / by_dilation;
    const Index top = reach < places ? reach : places - 1;
    if (top < residue) return {-1, 0};
    const Index place = top - modulo(top - residue);
    return {place, (x - place * value(by_dilation)) / by_stride};
  }

 private:
  CNN_DEVICE Index modulo(Index n) const { return split(n, by_place_step); }
  // a * b modulo place_step, for a and b below it.
  CNN_DEVICE Index multiply(Index a, Index b) const {
    constexpr Index kSquareFits = 46340;
    if (place_step() <= kSquareFits) return modulo(a * b);
    return static_cast<Index>(std::uint64_t(a) * std::uint64_t(b) % by_place_step.divisor);
  }

  // a^-1 modulo m by Euclid's algorithm, for coprime a and m.
  static std::int64_t invert(std::int64_t a, std::int64_t m) {
    std::int64_t r = m, next_r = a % m, t = 0, next_t = 1;
    while (next_r != 0) {
      const std::int64_t q = r / next_r;
      r -= q * next_r;
      std::swap(r, next_r);
      t -= q * next_t;
      std::swap(t, next_t);
    }
    return ((t % m) + m) % m;
  }
};

}  // namespace cnnkernels::pool
