#include "emulator/tensor_cores/product.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "emulator/fault.h"
#include "emulator/numbers.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

// A column's sums of all rows, which compilers keep in vector registers.
template <class T>
using Column [[gnu::vector_size(kRows * sizeof(T))]] = T;

template <class T, class Result>
void multiply_as(const Operands& operands, Result (*results)[kRows]) {
  Column<T> a[kMostDepth];
  for (int k = 0; k < operands.depth; ++k) {
    for (int row = 0; row < kRows; ++row) a[k][row] = static_cast<T>(operands.a[k][row]);
  }
  for (int column = 0; column < operands.columns; column += 2) {  // two, so that additions need not wait
    Column<T> sums{}, others{};
    for (int k = 0; k < operands.depth; ++k) {
      sums += a[k] * static_cast<T>(operands.b[column][k]);
      others += a[k] * static_cast<T>(operands.b[column + 1][k]);
    }
    for (int row = 0; row < kRows; ++row) {
      results[column][row] = static_cast<Result>(sums[row]);
      results[column + 1][row] = static_cast<Result>(others[row]);
    }
  }
}

std::array<float, 256> table_of(Format format) {
  std::array<float, 256> values;
  for (std::uint32_t bits = 0; bits < 256; ++bits) values[bits] = static_cast<float>(decode(format, bits));
  return values;
}
const std::array<float, 256> kE4m3Values = table_of(kE4m3), kE5m2Values = table_of(kE5m2);

// Tensor cores take no notice of the 13 bits that tf32 does not have.
float tf32_value(std::uint32_t bits) { return std::bit_cast<float>(bits & ~std::uint32_t{0x1fff}); }

template <class Word, class Value>
int values_of(const std::byte* bytes, float* values, Value value) {
  constexpr int kCount = 16 / sizeof(Word);
  Word words[kCount];
  std::memcpy(words, bytes, 16);
  for (int i = 0; i < kCount; ++i) values[i] = value(words[i]);
  return kCount;
}

}  // namespace

void multiply(const Operands& operands, double (*sums)[kRows]) { multiply_as<double>(operands, sums); }

void multiply_integers(const Operands& operands, std::int32_t (*sums)[kRows]) {
  multiply_as<float>(operands, sums);
}

float element_value(Type type, std::uint32_t bits) {
  switch (type) {
    case Type::f16:
      return half_to_float(static_cast<std::uint16_t>(bits));
    case Type::bf16:
      return bfloat16_to_float(static_cast<std::uint16_t>(bits));
    case Type::tf32:
      return tf32_value(bits);
    case Type::e4m3:
      return kE4m3Values[bits & 0xff];
    case Type::e5m2:
      return kE5m2Values[bits & 0xff];
    case Type::s8:
      return static_cast<std::int8_t>(bits);
    case Type::u8:
      return static_cast<std::uint8_t>(bits);
    default:
      fault("tensor cores do not take %s", name_of(type));
  }
}

int element_bits(Type type) {
  switch (type) {
    case Type::f64:
      return 64;
    case Type::tf32:
      return 32;
    case Type::f16:
    case Type::bf16:
      return 16;
    case Type::e4m3:
    case Type::e5m2:
    case Type::s8:
    case Type::u8:
      return 8;
    default:
      return 0;
  }
}

int chunk_values(Type type, const std::byte* bytes, float* values) {
  switch (type) {
    case Type::f16:
      return values_of<std::uint16_t>(bytes, values, half_to_float);
    case Type::bf16:
      return values_of<std::uint16_t>(bytes, values, bfloat16_to_float);
    case Type::tf32:
      return values_of<std::uint32_t>(bytes, values, tf32_value);
    case Type::e4m3:
      return values_of<std::uint8_t>(bytes, values, [](std::uint8_t b) { return kE4m3Values[b]; });
    case Type::e5m2:
      return values_of<std::uint8_t>(bytes, values, [](std::uint8_t b) { return kE5m2Values[b]; });
    case Type::s8:
      return values_of<std::int8_t>(bytes, values, [](std::int8_t b) { return static_cast<float>(b); });
    case Type::u8:
      return values_of<std::uint8_t>(bytes, values, [](std::uint8_t b) { return static_cast<float>(b); });
    default:
      fault("tensor cores do not take %s", name_of(type));
  }
}

std::uint32_t added_f32(double sum, std::uint32_t accumulator) {
  const double result = sum + std::bit_cast<float>(accumulator);
  if (is_wrong(WrongModel::rounds_to_zero)) return encode(kF32, result, Rounding::zero);
  return std::bit_cast<std::uint32_t>(static_cast<float>(result));
}

std::uint32_t added_f16x2(double low, double high, std::uint32_t accumulator) {
  const auto half = [](double sum, std::uint32_t bits) {
    return encode(kF16, sum + half_to_float(static_cast<std::uint16_t>(bits)), Rounding::nearest);
  };
  return half(low, accumulator) | half(high, accumulator >> 16) << 16;
}

std::uint32_t added_s32(std::int64_t sum, std::uint32_t accumulator, bool saturate) {
  using Limits = std::numeric_limits<std::int32_t>;
  sum += static_cast<std::int32_t>(accumulator);
  if (saturate) sum = std::clamp<std::int64_t>(sum, Limits::min(), Limits::max());
  return static_cast<std::uint32_t>(sum);
}

}  // namespace cnnkernels::emulator
