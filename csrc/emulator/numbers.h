// Floating-point formats that PTX knows and C++ does not, to and from double, in every rounding of PTX.
#pragma once

#include <bit>
#include <cstdint>

namespace cnnkernels::emulator {

enum class Rounding : std::uint8_t { nearest, zero, down, up, away };  // .rn .rz .rm .rp .rna

struct Format {
  int exponent_bits = 0, mantissa_bits = 0;
  bool has_infinity = true;  // e4m3 spends that exponent on numbers, and has a NaN alone

  constexpr int bits() const { return 1 + exponent_bits + mantissa_bits; }
  constexpr int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  constexpr std::uint32_t sign_bit() const { return std::uint32_t{1} << (bits() - 1); }
  constexpr std::uint32_t infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
  constexpr std::uint32_t largest() const { return has_infinity ? infinity() - 1 : sign_bit() - 2; }
  constexpr std::uint32_t nan() const { return sign_bit() - 1; }  // the one that cvt makes
};

inline constexpr Format kF16{5, 10}, kBf16{8, 7}, kF32{8, 23}, kE5m2{5, 2}, kE4m3{4, 3, false};
inline constexpr Format kTf32{8, 10};  // in 19 bits; a register holds them above 13 zeros

double decode(Format format, std::uint32_t bits);

// What overflows is infinity where the rounding leads there, else the largest number; `saturate` (.satfinite)
// makes it the largest always, infinities included. A NaN stays one.
std::uint32_t encode(Format format, double value, Rounding rounding, bool saturate = false);

// The same of float, as the bits of a 32-bit register whose low 13 bits are zero.
std::uint32_t encode_tf32(float value, Rounding rounding);

// For the inner loops of matrix products.
inline float half_to_float(std::uint16_t bits) {
  const std::uint32_t magnitude = std::uint32_t{bits} & 0x7fff;
  // An exponent that is 112 too small, put right by a multiplication: subnormals come out right too.
  float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  if (magnitude >= 0x7c00) value = std::bit_cast<float>((magnitude << 13) | 0x7f800000u);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | (std::uint32_t{bits} & 0x8000) << 16);
}
inline float bfloat16_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

}  // namespace cnnkernels::emulator
