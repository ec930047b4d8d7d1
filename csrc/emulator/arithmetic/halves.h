// f16 and bf16 as values that arithmetic is done with, fast where it is done often.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "emulator/numbers.h"

namespace cnnkernels::emulator {

inline constexpr std::uint32_t kNan32 = 0x7fffffff;  // the NaN that f32 instructions make
inline constexpr std::uint16_t kNan16 = 0x7fff;

inline float canonical(float value) { return value != value ? std::bit_cast<float>(kNan32) : value; }
inline float flushed(float value) {
  return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}

// To the nearest, ties to even. All branches are computed and one is taken, so that the host's vectors can do
// it.
inline std::uint16_t to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  const std::uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // Below 2^-14 the sum with 1/2 has the half's last bit as its own last one.
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
                                  std::bit_cast<std::uint32_t>(0.5f);
  std::uint32_t result = magnitude < 0x38800000 ? subnormal : normal;
  result = magnitude >= 0x47800000 ? 0x7c00 : result;
  result |= bits >> 16 & 0x8000;
  return static_cast<std::uint16_t>(magnitude > 0x7f800000 ? kNan16 : result);
}

inline std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t result = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? kNan16 : result);
}

// a * b + c for products that a double has exactly, rounded to odd: rounding that again to a shorter format
// is as if the sum had been rounded once.
inline double product_sum_to_odd(double a, double b, double c) {
  const double product = a * b, sum = product + c;
  const double high = sum - product, error = (product - (sum - high)) + (c - high);
  if (error == 0 || !std::isfinite(sum)) return sum;
  const auto bits = std::bit_cast<std::uint64_t>(sum);
  if (bits & 1) return sum;
  const bool grows = (error > 0) == (sum > 0);
  return std::bit_cast<double>(grows ? bits + 1 : bits - 1);
}

}  // namespace cnnkernels::emulator
