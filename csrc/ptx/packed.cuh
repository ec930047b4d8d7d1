// Two 16-bit floats in one register, compared at once.
#pragma once

#include <type_traits>

#include "convert.cuh"

namespace cnnkernels {

// All ones in each half where a > b or where a is NaN, else zeros. T is float16 or bfloat16.
template <class T>
CNN_DEVICE std::uint32_t greater_or_nan(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float16>) {
    std::uint32_t greater, nan;
    asm("set.gt.u32.f16x2 %0, %1, %2;" : "=r"(greater) : "r"(a), "r"(b));
    asm("set.nan.u32.f16x2 %0, %1, %1;" : "=r"(nan) : "r"(a));
    return greater | nan;
  }
#if __CUDA_ARCH__ >= 900
  if constexpr (std::is_same_v<T, bfloat16>) {
    std::uint32_t greater, nan;
    asm("set.gt.u32.bf16x2 %0, %1, %2;" : "=r"(greater) : "r"(a), "r"(b));
    asm("set.nan.u32.bf16x2 %0, %1, %1;" : "=r"(nan) : "r"(a));
    return greater | nan;
  }
#endif
#endif
  // The model, and bfloat16 before sm_90.
  const auto half = [](std::uint32_t pair, int which) {
    const T x{static_cast<std::uint16_t>(pair >> (16 * which))};
    if constexpr (std::is_same_v<T, float16>) return float16_to_float(x);
    if constexpr (std::is_same_v<T, bfloat16>) return bfloat16_to_float(x);
  };
  std::uint32_t mask = 0;
  for (int which = 0; which < 2; ++which) {
    const float x = half(a, which), y = half(b, which);
    if (x > y || x != x) mask |= 0xffffu << (16 * which);
  }
  return mask;
}

// Bit by bit, from `yes` where the mask is set, else from `no`.
CNN_DEVICE std::uint32_t choose(std::uint32_t mask, std::uint32_t yes, std::uint32_t no) {
  return (yes & mask) | (no & ~mask);
}

}  // namespace cnnkernels
