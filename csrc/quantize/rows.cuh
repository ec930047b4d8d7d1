// Dynamic quantization of rows in one pass: a row is read once and kept in the registers of a team of threads
// until its scale is known.
#pragma once

#include "absmax.cuh"

namespace cnnkernels::quantize {

inline constexpr int kRowThreads = 1024;
inline constexpr int kRowChunks = 2;  // a thread keeps
inline constexpr std::int32_t kLowestInt8 = -128;

template <class T>
CNN_KERNEL(kRowThreads, 1)
quantize_rows_kernel(std::int64_t rows, std::int64_t length, int team, const T* __restrict__ input,
                     const Written<std::uint8_t> output, float* __restrict__ scales) {
  const int member = static_cast<int>(threadIdx.x) & (team - 1);
  const std::int64_t row = std::int64_t(blockIdx.x) * (blockDim.x / team) + threadIdx.x / team;
  const bool exists = row < rows;
  const Span span{row * length, exists ? row * length + length : 0};
  const std::int64_t begin = (span.begin + output.head) / kChunk + member;

  Kept<T> x[kRowChunks][kChunk];
  float most = 0;
#pragma unroll
  for (int k = 0; k < kRowChunks; ++k) {
    const std::int64_t first = output.first_of(begin + k * team);
    if (first >= span.end) continue;
    read_chunk(input, rows * length, first, x[k]);
    most = larger(most, x[k], span, first);
  }
  const float scale = dynamic_scale(largest_of_team(most, team));
  if (member == 0 && exists) scales[row] = scale;

  const Quantizer quantizer = quantizer_of(scale, 0, kLowestInt8);
#pragma unroll
  for (int k = 0; k < kRowChunks; ++k) {
    if (output.first_of(begin + k * team) >= span.end) continue;
    std::uint8_t q[kChunk];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) q[j] = quantizer(value_of(x[k][j]));
    write_chunk(output, span, begin + k * team, q);
  }
}

}  // namespace cnnkernels::quantize
