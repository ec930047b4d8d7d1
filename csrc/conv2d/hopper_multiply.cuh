// A consumer's share of a stage: wgmma reads both operands where TMA left them.
#pragma once

#include "hopper_config.cuh"

namespace cnnkernels::conv2d::hopper {

template <class C>
CNN_DEVICE int first_row_of(int consumer) {
  return C::kDown == kConsumers ? consumer * C::kM * kBlock : 0;
}
template <class C>
CNN_DEVICE int first_column_of(int consumer) {
  return C::kAcross == kConsumers ? consumer * C::kN : 0;
}

// The operand from its row (or column) `first` on. Along the reduction a row is 128 bytes and an instruction
// takes 32 of them; across it, blocks of 64 rows hold 128 bytes for each index of the reduction, and an
// instruction takes 16 indices.
template <Major kMajor>
CNN_DEVICE std::uint64_t operand(const unsigned char* tile, int first) {
  const unsigned char* start = tile + first * kRowBytes;  // either way: 64 rows are a block
  if constexpr (kMajor == Major::k) return wgmma_k_major(start, kSwizzle);
  return wgmma_mn_major(start, kSwizzle, kBlockBytes);
}
template <Major kMajor>
inline constexpr int kInstructionBytes = kMajor == Major::k ? 32 : 16 * kRowBytes;

// sums += A * B of one stage, issued only.
template <class C>
CNN_DEVICE void multiply(typename C::Sums& sums, const unsigned char* stage, int consumer) {
  const std::uint64_t b = operand<C::kMajorB>(stage + C::kBytesA, first_column_of<C>(consumer));
  std::uint64_t a[C::kM];
#pragma unroll
  for (int m = 0; m < C::kM; ++m) a[m] = operand<C::kMajorA>(stage, first_row_of<C>(consumer) + m * kBlock);
#pragma unroll
  for (int i = 0; i < kRowBytes / 32; ++i) {
#pragma unroll
    for (int m = 0; m < C::kM; ++m) {
      wgmma<typename C::In, C::kN, C::kMajorA, C::kMajorB>(
          sums[m], wgmma_advance(a[m], i * kInstructionBytes<C::kMajorA>),
          wgmma_advance(b, i * kInstructionBytes<C::kMajorB>), true);
    }
  }
}

}  // namespace cnnkernels::conv2d::hopper
