// A consumer's share of a stage: wgmma reads both operands where TMA left them.
#pragma once

#include "config.cuh"

namespace cnnkernels::gemm::sm90 {

// The operand from its row (or column) `first`, a multiple of 64, on: one run of the reduction of all of the
// tile's `Extent` rows. Along the reduction a row has kSpan bytes; across it, blocks of 64 rows hold 128
// bytes for each index, of which a run has half as many as bytes. So either takes kSpan bytes a row.
template <class C, Major kMajor>
CNN_DEVICE std::uint64_t operand(const unsigned char* tile, int first) {
  const unsigned char* start = tile + first * C::kSpan;
  if constexpr (kMajor == Major::k) return wgmma_k_major(start, C::kRunSwizzle);
  return wgmma_mn_major(start, kSwizzle, kBlock * C::kSpan);
}

// How far the i-th instruction of a stage, 32 bytes of the reduction, reads from the first.
template <class C, Major kMajor, int Extent>
CNN_DEVICE constexpr int instruction_offset(int i) {
  const int run = i * 32 / C::kSpan, within = i * 32 % C::kSpan;
  return run * Extent * C::kSpan + (kMajor == Major::k ? within : within / 2 * kRowBytes);
}

// sums += A * B of one stage, issued only. In: of C, or uint8 where that is int8.
template <class C, class In>
CNN_DEVICE void multiply(typename C::Sums& sums, const unsigned char* stage, int consumer) {
  const std::uint64_t b = operand<C, C::kMajorB>(stage + C::kBytesA, first_column_of<C>(consumer));
  std::uint64_t a[C::kM];
#pragma unroll
  for (int m = 0; m < C::kM; ++m)
    a[m] = operand<C, C::kMajorA>(stage, first_row_of<C>(consumer) + m * kBlock);
#pragma unroll
  for (int i = 0; i < kRowBytes / 32; ++i) {
#pragma unroll
    for (int m = 0; m < C::kM; ++m) {
      wgmma<In, C::kN, C::kMajorA, C::kMajorB>(
          sums[m], wgmma_advance(a[m], instruction_offset<C, C::kMajorA, C::kRows>(i)),
          wgmma_advance(b, instruction_offset<C, C::kMajorB, C::kColumns>(i)), true);
    }
  }
}

}  // namespace cnnkernels::gemm::sm90
