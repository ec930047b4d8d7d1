// CUDA's arithmetic that C++ has under other names.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#define CNN_MIN_MAX(type)                                      \
  constexpr type min(type a, type b) { return b < a ? b : a; } \
  constexpr type max(type a, type b) { return a < b ? b : a; }
CNN_MIN_MAX(int)
CNN_MIN_MAX(unsigned)
CNN_MIN_MAX(long)
CNN_MIN_MAX(unsigned long)
CNN_MIN_MAX(long long)
CNN_MIN_MAX(unsigned long long)
#undef CNN_MIN_MAX
// As on a GPU: of a number and a NaN, the number.
inline float min(float a, float b) { return ::fminf(a, b); }
inline float max(float a, float b) { return ::fmaxf(a, b); }
inline double min(double a, double b) { return ::fmin(a, b); }
inline double max(double a, double b) { return ::fmax(a, b); }

inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }

// Rounded once each and never fused: setup.py compiles with -ffp-contract=off.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }

// To the nearest integer, ties to even; out of range saturates and NaN gives 0, as cvt.rni.s32.f32 does.
inline int __float2int_rn(float x) {
  if (!(x == x)) return 0;
  const float rounded = ::nearbyintf(x);
  if (rounded >= 0x1p31f) return 0x7fffffff;
  if (rounded < -0x1p31f) return -0x7fffffff - 1;
  return static_cast<int>(rounded);
}
inline float __int2float_rn(int x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<std::int64_t>(a) * b) >> 32); }

// Bytes of a (numbers 0 to 3) and b (4 to 7), the lowest first, as the four digits of `which` say, its lowest
// first. (A digit's eighth bit, which would spread a sign, is not for kernels.)
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
  const std::uint64_t both = std::uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = static_cast<unsigned>(both >> ((which >> (4 * i) & 7) * 8)) & 255;
    result |= byte << (8 * i);
  }
  return result;
}

// Four products of signed bytes added to c.
inline int __dp4a(int a, int b, int c) {
  auto sum = static_cast<unsigned>(c);
  for (int shift = 0; shift < 32; shift += 8) {
    const int product = static_cast<std::int8_t>(static_cast<unsigned>(a) >> shift) *
                        static_cast<std::int8_t>(static_cast<unsigned>(b) >> shift);
    sum += static_cast<unsigned>(product);
  }
  return static_cast<int>(sum);
}

template <class T>
T __ldg(const T* pointer) {
  return *pointer;
}
