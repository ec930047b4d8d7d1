// Conversions between float and the 16-bit storage types, round to nearest even, and float to tf32. The
// host's bodies give the GPU's bits, NaN included: every NaN becomes 0x7fff, or 0x7fffffff on the way to
// float (bfloat16 widens by a shift and keeps its bits).
#pragma once

#include <bit>

#include "../common/device.h"

namespace cnnkernels {

struct float16 {
  std::uint16_t bits;
};
struct bfloat16 {
  std::uint16_t bits;
};

#if defined(__CUDA_ARCH__)

CNN_HOST_DEVICE float float16_to_float(float16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
CNN_HOST_DEVICE float16 float_to_float16(float x) {
  float16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
CNN_HOST_DEVICE float bfloat16_to_float(bfloat16 x) { return __uint_as_float(std::uint32_t(x.bits) << 16); }
CNN_HOST_DEVICE bfloat16 float_to_bfloat16(float x) {
  bfloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
// Rounds to 10 bits of fraction, ties away from zero: what the tensor cores' tf32 operands are made of.
CNN_HOST_DEVICE std::uint32_t float_to_tf32(float x) {
  std::uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}

#else

#if defined(__F16C__)

// The compiler's own names for the CPU's instructions: <immintrin.h>, which has others for them, would take
// every source a third of a second.
using EightHalves = short __attribute__((vector_size(16)));
using FourFloats = float __attribute__((vector_size(16)));

CNN_HOST_DEVICE float float16_to_float(float16 x) {
  const float y = __builtin_ia32_vcvtph2ps(EightHalves{static_cast<short>(x.bits)})[0];
  return y == y ? y : std::bit_cast<float>(0x7fffffffu);
}
CNN_HOST_DEVICE float16 float_to_float16(float x) {
  if (x != x) return {0x7fff};
  return {static_cast<std::uint16_t>(__builtin_ia32_vcvtps2ph(FourFloats{x}, 0)[0])};  // 0: to nearest even
}

#else

CNN_HOST_DEVICE float float16_to_float(float16 x) {
  const std::uint32_t sign = std::uint32_t(x.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 31u, fraction = x.bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(fraction ? 0x7fffffffu : sign | 0x7f800000u);
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = float(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}
CNN_HOST_DEVICE float16 float_to_float16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = std::uint16_t((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {0x7fff};
  if (magnitude >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00)};  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {  // subnormal: an addition does the rounding
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {std::uint16_t(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {std::uint16_t(sign | ((rounded - 0x38000000u) >> 13))};
}

#endif

CNN_HOST_DEVICE float bfloat16_to_float(bfloat16 x) {
  return std::bit_cast<float>(std::uint32_t(x.bits) << 16);
}
CNN_HOST_DEVICE bfloat16 float_to_bfloat16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
CNN_HOST_DEVICE std::uint32_t float_to_tf32(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const bool finite = (bits & 0x7fffffffu) < 0x7f800000u;
  return (finite ? bits + 0x1000u : bits) & 0xffffe000u;
}

#endif

}  // namespace cnnkernels
