#include "mma.h"

#include <cmath>
#include <cstring>
#include <vector>

#if defined(__FMA__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace cnnkernels::model {
namespace {

// Scratch of an OS thread: too large for the stack of a fiber, and no fiber switch
// happens while it is in use.
struct Scratch {
  std::vector<std::uint32_t> a_words, b_words;
  std::vector<float> a, b, sums;
};
thread_local Scratch scratch;

template <class T>
T* at_least(std::vector<T>& storage, std::size_t count) {
  if (storage.size() < count) storage.resize(count);
  return storage.data();
}

void widen_row(OperandFormat format, const std::uint32_t* words, float* values) {
  std::uint16_t halves[16];
  std::int8_t bytes[32];
  std::uint8_t unsigned_bytes[32];
  switch (format) {
    case OperandFormat::float16:
      std::memcpy(halves, words, 32);
#if defined(__F16C__)
      for (int i = 0; i < 16; i += 8) {
        _mm256_storeu_ps(values + i,
                         _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + i))));
      }
#else
      for (int i = 0; i < 16; ++i) values[i] = float16_to_float({halves[i]});
#endif
      return;
    case OperandFormat::bfloat16:
      std::memcpy(halves, words, 32);
      for (int i = 0; i < 16; ++i) values[i] = std::bit_cast<float>(std::uint32_t(halves[i]) << 16);
      return;
    case OperandFormat::tf32:  // the hardware does not see the low 13 bits
      for (int i = 0; i < 8; ++i) values[i] = std::bit_cast<float>(words[i] & 0xffffe000u);
      return;
    case OperandFormat::uint8:
      std::memcpy(unsigned_bytes, words, 32);
      for (int i = 0; i < 32; ++i) values[i] = unsigned_bytes[i];
      return;
    default:
      std::memcpy(bytes, words, 32);
      for (int i = 0; i < 32; ++i) values[i] = bytes[i];
  }
}

typedef float Float8 __attribute__((vector_size(32)));
typedef float Float2 __attribute__((vector_size(8)));

inline Float2 load2(const float* from) {
  Float2 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline void store2(float* to, Float2 value) { std::memcpy(to, &value, sizeof value); }

inline Float8 load8(const float* from) {
  Float8 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline void multiply_add(Float8& sum, float a, const Float8& b) {
  const Float8 factor = {a, a, a, a, a, a, a, a};
#if defined(__FMA__)  // the same number: the products of all formats are exact in float
  sum = reinterpret_cast<Float8>(_mm256_fmadd_ps(reinterpret_cast<__m256>(factor),
                                                 reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(sum)));
#else
  sum += factor * b;
#endif
}

// sums [4][columns..] of 4 rows and 8 * Blocks columns: eight chains of additions
// keep the CPU's multipliers busy.
template <int Blocks>
void multiply_block(const float* a, const float* b, float* sums, int columns, int depth) {
  Float8 sum[4][Blocks] = {};
  for (int k = 0; k < depth; ++k) {
    for (int j = 0; j < Blocks; ++j) {
      const Float8 right = load8(b + k * columns + 8 * j);
      for (int i = 0; i < 4; ++i) multiply_add(sum[i][j], a[i * depth + k], right);
    }
  }
  for (int i = 0; i < 4; ++i) std::memcpy(sums + i * columns, sum[i], sizeof sum[i]);
}

struct Tile {
  OperandFormat format;
  int mt, nt;
  void* d;
  const void *a, *b;
};

// Adds the product to the lanes' accumulators, two neighbours of a row at a time.
template <class Accumulator>
void accumulate(void* const lanes[32], const float* sums, int mt, int nt) {
  for (int lane = 0; lane < 32; ++lane) {
    auto* d = static_cast<Accumulator*>(static_cast<const Tile*>(lanes[lane])->d);
    for (int i = 0; i < mt; ++i) {
      const float* upper = sums + (16 * i + lane / 4) * nt * 8 + 2 * (lane % 4);
      const float* lower = upper + 8 * nt * 8;
      for (int j = 0; j < nt; ++j, d += 4, upper += 8, lower += 8) {
        if constexpr (std::is_same_v<Accumulator, float>) {
          store2(d, load2(d) + load2(upper));
          store2(d + 2, load2(d + 2) + load2(lower));
        } else {
          for (int v = 0; v < 4; ++v) {
            d[v] = std::int32_t(std::uint32_t(d[v]) +
                                std::uint32_t(std::int32_t((v < 2 ? upper : lower)[v % 2])));
          }
        }
      }
    }
  }
}

void meet_words(void* const lanes[32]) {
  const Tile& first = *static_cast<const Tile*>(lanes[0]);
  const int mt = first.mt, nt = first.nt;
  auto* a = reinterpret_cast<std::uint32_t (*)[kRowWords]>(at_least(scratch.a_words, mt * 16 * kRowWords));
  auto* b = reinterpret_cast<std::uint32_t (*)[kRowWords]>(at_least(scratch.b_words, nt * 8 * kRowWords));
  for (int lane = 0; lane < 32; ++lane) {
    const auto& tile = *static_cast<const Tile*>(lanes[lane]);
    const int g = lane / 4, c = lane % 4;
    const auto* from = static_cast<const std::uint32_t*>(tile.a);
    for (int i = 0; i < mt; ++i) {
      for (int r = 0; r < 4; ++r) a[16 * i + g + 8 * (r % 2)][c + 4 * (r / 2)] = *from++;
    }
    from = static_cast<const std::uint32_t*>(tile.b);
    for (int j = 0; j < nt; ++j) {
      for (int r = 0; r < 2; ++r) b[8 * j + g][c + 4 * r] = *from++;
    }
  }
  const float* sums = multiply(first.format, a, 16 * mt, b, 8 * nt);
  if (first.format == OperandFormat::int8 || first.format == OperandFormat::uint8)
    accumulate<std::int32_t>(lanes, sums, mt, nt);
  else
    accumulate<float>(lanes, sums, mt, nt);
}

// m8n8k4 in double: fused multiply-adds in the order of k.
void meet_doubles(void* const lanes[32]) {
  const int mt = static_cast<const Tile*>(lanes[0])->mt, nt = static_cast<const Tile*>(lanes[0])->nt;
  for (int lane = 0; lane < 32; ++lane) {
    auto* d = static_cast<double*>(static_cast<const Tile*>(lanes[lane])->d);
    for (int i = 0; i < mt; ++i) {
      for (int j = 0; j < nt; ++j) {
        for (int v = 0; v < 2; ++v, ++d) {
          const int row = lane / 4, column = 2 * (lane % 4) + v;
          for (int k = 0; k < 4; ++k) {
            const auto* a = static_cast<const double*>(static_cast<const Tile*>(lanes[4 * row + k])->a);
            const auto* b = static_cast<const double*>(static_cast<const Tile*>(lanes[4 * column + k])->b);
            *d = std::fma(a[i], b[j], *d);
          }
        }
      }
    }
  }
}

}  // namespace

const float* multiply(OperandFormat format, const std::uint32_t (*a)[kRowWords], int rows,
                      const std::uint32_t (*b)[kRowWords], int columns) {
  const int depth = row_elements(format);
  const OperandFormat format_b = format == OperandFormat::uint8 ? OperandFormat::int8 : format;
  float* left = at_least(scratch.a, rows * depth);
  float* right = at_least(scratch.b, columns * depth);
  float* sums = at_least(scratch.sums, rows * columns);
  for (int i = 0; i < rows; ++i) widen_row(format, a[i], left + i * depth);
  for (int j = 0; j < columns; ++j) {  // transposed: the inner loop runs over columns
    float row[32];
    widen_row(format_b, b[j], row);
    for (int k = 0; k < depth; ++k) right[k * columns + j] = row[k];
  }
  for (int i = 0; i < rows; i += 4) {
    int j = 0;
    for (; j + 16 <= columns; j += 16) {
      multiply_block<2>(left + i * depth, right + j, sums + i * columns + j, columns, depth);
    }
    if (j < columns) multiply_block<1>(left + i * depth, right + j, sums + i * columns + j, columns, depth);
  }
  return sums;
}

void mma_tile(OperandFormat format, int mt, int nt, void* d, const void* a, const void* b,
              interpreter::Site site) {
  Tile mine{format, mt, nt, d, a, b};
  const auto meet = [](void* const* lanes) {
    if (static_cast<const Tile*>(lanes[0])->format == OperandFormat::float64)
      meet_doubles(lanes);
    else
      meet_words(lanes);
  };
  interpreter::warp_meet(0xffffffffu, &mine, meet, "mma_tile", site);
}

}  // namespace cnnkernels::model
