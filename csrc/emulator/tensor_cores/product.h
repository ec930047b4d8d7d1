// D = A * B + C of a warp: at most 16 rows of D, whatever instruction asks for it.
//
// Floating-point products are exact in double and are added there, the accumulator last; the sum is rounded
// once, to the accumulator's type. Hardware adds in an order and with a rounding that nobody specifies, so
// that tests compare results where both are exact: on small integers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/types.h"

namespace cnnkernels::emulator {

inline constexpr int kRows = 16, kMostDepth = 32, kMostColumns = 256;

// Operands as numbers: of f16, bf16, tf32, fp8 and 8-bit integers each is a float. Laid out for `multiply`.
struct Operands {
  int columns = 0, depth = 0;
  float a[kMostDepth][kRows];
  float b[kMostColumns][kMostDepth];
};

// Sums of a row of A by a column of B, [column][row]. In float they are exact of 8-bit integers, whose sums
// stay below 2^24.
void multiply(const Operands& operands, double (*sums)[kRows]);
void multiply_integers(const Operands& operands, std::int32_t (*sums)[kRows]);

float element_value(Type type, std::uint32_t bits);
int element_bits(Type type);
// Of 16 bytes of shared memory: the elements there are.
int chunk_values(Type type, const std::byte* bytes, float* values);

// What an accumulator becomes.
std::uint32_t added_f32(double sum, std::uint32_t accumulator);
std::uint32_t added_f16x2(double low, double high, std::uint32_t accumulator);
std::uint32_t added_s32(std::int64_t sum, std::uint32_t accumulator, bool saturate);

}  // namespace cnnkernels::emulator
