// Along one axis: which elements of the input an average is of, and which averages an element is in.
#pragma once

#include <cstdint>

#include "transposed_window.h"

namespace cnnkernels::pool {

// Elements [begin, end), all inside the input; `length` is what they count for in the divisor.
struct Span {
  Index begin, end, length;
};

// avg_pool's windows. `counted` of the padding's elements count, on either side: all of them or none.
struct WindowSpans : TransposedAxis {
  static constexpr bool kOverlapEvenly = true;  // windows that overlap may have one divisor
  Index counted;

  WindowSpans(std::int64_t size, std::int64_t places, std::int64_t windows, std::int64_t stride,
              std::int64_t pad, bool count_include_pad)
      : TransposedAxis(size, places, windows, stride, pad), counted(count_include_pad ? this->pad : 0) {}

  CNN_DEVICE Span operator[](Index p) const {
    const Index start = p * stride() - pad, end = start + places;
    return {max(start, 0), min(end, size), min(end, size + counted) - max(start, -counted)};
  }
  // The first average that an element is in, and one past the last; whole pixels beyond the end are in none.
  CNN_DEVICE Index first(Index h) const { return TransposedAxis::first(h + pad); }
  CNN_DEVICE Index end(Index h) const { return TransposedAxis::end(h + pad); }
};

// adaptive_avg_pool's bins, which overlap where the sizes do not divide. Products are of type Offset.
template <class Offset>
struct Bins {
  static constexpr bool kOverlapEvenly = false;
  Index size, windows;
  FastDivide by_size, by_windows;

  Bins(std::int64_t size, std::int64_t windows)
      : size(static_cast<Index>(size)),
        windows(static_cast<Index>(windows)),
        by_size(size),
        by_windows(windows) {}

  CNN_DEVICE Span operator[](Index p) const {
    const Index begin = quotient(Offset(p) * size, by_windows);
    const Index end = quotient(Offset(p + 1) * size + windows - 1, by_windows);
    return {begin, end, end - begin};
  }
  CNN_DEVICE Index first(Index h) const { return quotient(Offset(h) * windows, by_size); }
  CNN_DEVICE Index end(Index h) const {
    return min(quotient(Offset(h + 1) * windows + size - 1, by_size), windows);
  }

 private:
  static CNN_DEVICE Index quotient(Offset n, const FastDivide& d) {
    if constexpr (sizeof(Offset) == sizeof(Index)) return n / d;
    return static_cast<Index>(n / value(d));
  }
};

// Do the products of an axis stay within 32 bits?
inline bool small_bins(std::int64_t size, std::int64_t windows) {
  return (size + 3) * (windows + 3) <= INT32_MAX;
}

}  // namespace cnnkernels::pool
