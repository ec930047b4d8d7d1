// Coordinates, and exact division of them by numbers known at launch.
#pragma once

#include "fast_divide.h"

namespace cnnkernels {

// Coordinates, and numbers of sites; element offsets have a type of their own.
using Index = std::int32_t;

// The largest element offset, and number of threads, that 32-bit arithmetic may meet. Room is left for the
// idle threads of the last block, which count past the end.
inline constexpr std::int64_t kLargestIndex = INT32_MAX - 1023;

// Exact division of non-negative numbers.
CNN_DEVICE Index operator/(Index n, const FastDivide& d) {
  return static_cast<Index>(d.quotient(static_cast<std::uint32_t>(n)));
}
// n := n / d, returns n % d.
CNN_DEVICE Index split(Index& n, const FastDivide& d) {
  std::uint32_t remainder;
  n = static_cast<Index>(d.divmod(static_cast<std::uint32_t>(n), remainder));
  return static_cast<Index>(remainder);
}
CNN_DEVICE Index value(const FastDivide& d) { return static_cast<Index>(d.divisor); }

}  // namespace cnnkernels
