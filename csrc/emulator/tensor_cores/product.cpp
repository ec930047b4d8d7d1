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

// What a register of a CPU holds of a column; two at a time, of four columns, so that none waits for a sum.
template <class T>
using Part [[gnu::vector_size(32)]] = T;
template <class T>
inline constexpr int kPartRows = 32 / sizeof(T);

// Products are exact, so that a CPU may fuse them with the sums: the bits are the same.
template <class T, class Result>
[[gnu::optimize("fp-contract=fast")]] void multiply_as(const Operands& operands, Result (*results)[kRows]) {
  alignas(32) T a[kMostDepth][kRows];
  for (int k = 0; k < operands.depth; ++k) {
    for (int row = 0; row < kRows; ++row) a[k][row] = static_cast<T>(operands.a[k][row]);
  }
  const auto store = [&](int column, int row, Part<T> part) {
    for (int i = 0; i < kPartRows<T>; ++i) results[column][row + i] = static_cast<Result>(part[i]);
  };
  for (int column = 0; column < operands.columns; column += 4) {
    const float (*b)[kMostDepth] = &operands.b[column];
    for (int row = 0; row < kRows; row += 2 * kPartRows<T>) {
      Part<T> low0{}, low1{}, low2{}, low3{}, high0{}, high1{}, high2{}, high3{};
      for (int k = 0; k < operands.depth; ++k) {
        const auto& low = *reinterpret_cast<const Part<T>*>(&a[k][row]);
        const auto& high = *reinterpret_cast<const Part<T>*>(&a[k][row + kPartRows<T>]);
        const T b0 = b[0][k], b1 = b[1][k], b2 = b[2][k], b3 = b[3][k];
        low0 += low * b0, high0 += high * b0;
        low1 += low * b1, high1 += high * b1;
        low2 += low * b2, high2 += high * b2;
        low3 += low * b3, high3 += high * b3;
      }
      const Part<T> sums[] = {low0, low1, low2, low3, high0, high1, high2, high3};
      for (int i = 0; i < 8; ++i) store(column + i % 4, row + i / 4 * kPartRows<T>, sums[i]);
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
