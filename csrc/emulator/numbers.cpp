#include "emulator/numbers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

bool rounds_up(Rounding rounding, bool negative, bool odd, std::uint64_t rest, std::uint64_t half) {
  switch (rounding) {
    case Rounding::nearest:
      return rest > half || (rest == half && odd);
    case Rounding::away:
      return rest >= half;
    case Rounding::zero:
      return false;
    case Rounding::down:
      return negative && rest != 0;
    case Rounding::up:
      return !negative && rest != 0;
  }
  return false;
}

bool overflows_to_infinity(Rounding rounding, bool negative) {
  switch (rounding) {
    case Rounding::zero:
      return false;
    case Rounding::down:
      return negative;
    case Rounding::up:
      return !negative;
    default:
      return true;
  }
}

}  // namespace

double decode(Format format, std::uint32_t bits) {
  const std::uint32_t magnitude = bits & (format.sign_bit() - 1);
  const double sign = (bits & format.sign_bit()) != 0 ? -1.0 : 1.0;
  const bool special = format.has_infinity ? magnitude >= format.infinity() : magnitude == format.nan();
  if (special) {
    if (format.has_infinity && magnitude == format.infinity())
      return sign * std::numeric_limits<double>::infinity();
    return std::copysign(std::numeric_limits<double>::quiet_NaN(), sign);
  }
  const int exponent = static_cast<int>(magnitude >> format.mantissa_bits);
  const std::uint32_t mantissa = magnitude & ((1u << format.mantissa_bits) - 1);
  const std::uint32_t significand = exponent != 0 ? mantissa | 1u << format.mantissa_bits : mantissa;
  return sign * std::ldexp(significand, std::max(exponent, 1) - format.bias() - format.mantissa_bits);
}

std::uint32_t encode(Format format, double value, Rounding rounding, bool saturate) {
  if (rounding == Rounding::nearest && is_wrong(WrongModel::rounds_to_zero)) rounding = Rounding::zero;
  if (std::isnan(value)) return format.nan();
  const bool negative = std::signbit(value);
  const std::uint32_t sign = negative ? format.sign_bit() : 0;
  const auto overflow = [&](bool to_infinity) {
    if (saturate || !to_infinity) return sign | format.largest();
    return sign | (format.has_infinity ? format.infinity() : format.nan());
  };
  if (std::isinf(value)) return overflow(true);
  if (value == 0) return sign;

  // The significand, 53 bits, times two to the `exponent`; a subnormal of the format loses more of them.
  int exponent = 0;
  const auto significand = static_cast<std::uint64_t>(std::ldexp(std::frexp(std::abs(value), &exponent), 53));
  const int biased = exponent - 1 + format.bias();
  const int lost = std::min(53 - 1 - format.mantissa_bits + (biased < 1 ? 1 - biased : 0), 63);
  std::uint64_t kept = significand >> lost;
  const std::uint64_t rest = significand & ((std::uint64_t{1} << lost) - 1);
  if (rounds_up(rounding, negative, (kept & 1) != 0, rest, std::uint64_t{1} << (lost - 1))) ++kept;
  // A carry out of the mantissa moves into the exponent by itself; so does a subnormal that became normal.
  const std::uint64_t magnitude =
      biased < 1 ? kept : kept + (static_cast<std::uint64_t>(biased - 1) << format.mantissa_bits);
  if (magnitude > format.largest()) return overflow(overflows_to_infinity(rounding, negative));
  return sign | static_cast<std::uint32_t>(magnitude);
}

std::uint32_t encode_tf32(float value, Rounding rounding) {
  if (!std::isnan(value)) return encode(kTf32, value, rounding) << 13;
  // What ptxas makes of .rna are integer instructions, which keep what they can of a NaN.
  if (rounding == Rounding::away) return std::bit_cast<std::uint32_t>(value) & ~std::uint32_t{0x1fff};
  return 0x7fffffffu;
}

}  // namespace cnnkernels::emulator
