// Division by a number known at launch: one multiplication and a shift instead of some 20 instructions.
// Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
#pragma once

#include <bit>

#include "device.h"

namespace cnnkernels {

// Exact for dividends and divisors in [0, 2^31) and [1, 2^31).
struct FastDivide {
  std::uint32_t divisor = 1, multiplier = 0, shift = 0;

  FastDivide() = default;
  explicit FastDivide(std::int64_t d) : divisor(static_cast<std::uint32_t>(d)) {
    if (divisor == 1) return;
    shift = static_cast<std::uint32_t>(31 - std::countl_zero(divisor - 1));  // ceil(log2(d)) - 1
    multiplier = static_cast<std::uint32_t>(((std::uint64_t(1) << (32 + shift)) + divisor - 1) / divisor);
  }

  CNN_HOST_DEVICE std::uint32_t quotient(std::uint32_t n) const {
    if (divisor == 1) return n;
    return static_cast<std::uint32_t>((std::uint64_t(n) * multiplier) >> 32) >> shift;
  }
  // n = quotient * divisor + remainder
  CNN_HOST_DEVICE std::uint32_t divmod(std::uint32_t n, std::uint32_t& remainder) const {
    const std::uint32_t q = quotient(n);
    remainder = n - q * divisor;
    return q;
  }
};

}  // namespace cnnkernels
