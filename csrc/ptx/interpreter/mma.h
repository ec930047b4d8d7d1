// The CPU's tensor core. Every instruction of it, mma.sync or wgmma, 16-bit, tf32 or 8-bit, multiplies rows
// of 32 bytes of K; only how the bytes are read and where they come from differ.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../../interpreter/api.h"
#include "../convert.cuh"

namespace cnnkernels {

struct tf32;

namespace model {

// uint8 multiplies unsigned rows of A by signed columns of B.
enum class OperandFormat { float16, bfloat16, tf32, int8, uint8, float64 };

template <class In>
constexpr OperandFormat operand_format() {
  if constexpr (std::is_same_v<In, float16>)
    return OperandFormat::float16;
  else if constexpr (std::is_same_v<In, bfloat16>)
    return OperandFormat::bfloat16;
  else if constexpr (std::is_same_v<In, tf32>)
    return OperandFormat::tf32;
  else if constexpr (std::is_same_v<In, std::int8_t>)
    return OperandFormat::int8;
  else if constexpr (std::is_same_v<In, std::uint8_t>)
    return OperandFormat::uint8;
  else {
    static_assert(std::is_same_v<In, double>, "no tensor core multiplies this type");
    return OperandFormat::float64;
  }
}

constexpr int kRowWords = 8;  // a row of an operand: 32 bytes of K, as 4-byte words

// Elements of K in a row.
constexpr int row_elements(OperandFormat format) {
  if (format == OperandFormat::tf32) return 8;
  return format == OperandFormat::int8 || format == OperandFormat::uint8 ? 32 : 16;
}

// sums[i][j] = sum over k of a[i][k] * b[j][k], kept in the calling OS thread until its next call. Products
// are exact, sums are rounded to float one after the other in the order of k; 8-bit sums stay below 2^20 and
// are exact. rows is a multiple of 16, columns of 8.
const float* multiply(OperandFormat format, const std::uint32_t (*a)[kRowWords], int rows,
                      const std::uint32_t (*b)[kRowWords], int columns);

// One meeting of the warp for a whole tile: d [mt][nt][..], a [mt][..], b [nt][..] are the calling lane's.
void mma_tile(OperandFormat format, int mt, int nt, void* d, const void* a, const void* b,
              interpreter::Site site);

}  // namespace model
}  // namespace cnnkernels
