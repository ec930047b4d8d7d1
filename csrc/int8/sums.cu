// Sums of a matrix's rows or columns, which correct a product for the zero point of what they are multiplied
// by.
#include "bytes.cuh"
#include "product.h"
#include "../common/launch.h"

namespace cnnkernels::int8 {

namespace {

constexpr int kSumThreads = 256, kWarps = kSumThreads / 32;

// Four bytes added to a sum. Unsigned ones are taken for signed, 128 less: `flip` has their highest bits set.
CNN_DEVICE std::int32_t add_word(std::uint32_t word, std::uint32_t flip, std::int32_t sum) {
  return __dp4a(static_cast<int>(word ^ flip), 0x01010101, sum);
}

// Along the reduction: a warp a side, its lanes aligned word by word. Those that the side does not fill are
// read byte by byte.
CNN_KERNEL(kSumThreads, 1)
sums_along_depth(const Summands from, std::int32_t* sums) {
  const std::int64_t side = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (side >= from.sides) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::uint8_t* row = static_cast<const std::uint8_t*>(from.data) + side * from.side_stride;
  const std::uint32_t flip = from.is_unsigned ? 0x80808080u : 0;
  std::int32_t sum = 0;
  const auto shift = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) & 3);
  for (std::int64_t k = lane * kWordBytes - shift; k < from.depth; k += 32 * kWordBytes) {
    if (k >= 0 && k + kWordBytes <= from.depth) {
      sum = add_word(*reinterpret_cast<const std::uint32_t*>(row + k), flip, sum);
      continue;
    }
    const auto first = static_cast<int>(max(-k, std::int64_t(0)));
    const auto end = static_cast<int>(min(from.depth - k, std::int64_t(kWordBytes)));
    sum = add_word(assemble(fetch_singly(row + k, first, end), flip), flip, sum);  // what is missing counts 0
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (lane == 0) sums[side] = sum + (from.is_unsigned ? static_cast<std::int32_t>(128 * from.depth) : 0);
}

// Any strides: a lane a side, so that a warp reads neighbours where they lie together; the warps share the
// depth.
CNN_KERNEL(kSumThreads, 1)
sums_across(const Summands from, std::int32_t* sums) {
  CNN_SHARED(std::int32_t, parts, [kWarps][32]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t side = std::int64_t(blockIdx.x) * 32 + lane;
  const auto* first = static_cast<const std::uint8_t*>(from.data) + side * from.side_stride;
  std::int32_t sum = 0;
  if (side < from.sides) {
    for (std::int64_t k = warp; k < from.depth; k += kWarps) {
      const std::uint8_t byte = first[k * from.depth_stride];
      sum += from.is_unsigned ? byte : static_cast<std::int8_t>(byte);
    }
  }
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || side >= from.sides) return;
#pragma unroll
  for (int other = 1; other < kWarps; ++other) sum += parts[other][lane];
  sums[side] = sum;
}

// A warp a filter, tap by tap; its first lane keeps the sums of the row so far and adds those of the rows
// above.
CNN_KERNEL(kSumThreads, 1)
sums_of_windows(const std::uint32_t* weight, std::int64_t filters, int r, int s, int words,
                std::int32_t* sums) {
  const std::int64_t filter = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (filter >= filters) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto at = [&](int row, int column) { return sums + (row * (s + 1) + column) * filters + filter; };
  const std::uint32_t* tap = weight + filter * r * s * words;
  if (lane == 0)
    for (int column = 0; column <= s; ++column) *at(0, column) = 0;
  for (int row = 0; row < r; ++row) {
    std::int32_t of_row = 0;
    if (lane == 0) *at(row + 1, 0) = 0;
    for (int column = 0; column < s; ++column, tap += words) {
      std::int32_t sum = 0;
      for (int word = lane; word < words; word += 32) sum = add_word(tap[word], 0, sum);
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
      of_row += sum;
      if (lane == 0) *at(row + 1, column + 1) = *at(row, column + 1) + of_row;
    }
  }
}

}  // namespace

void launch_window_sums(const void* weight, std::int64_t filters, int r, int s, int channels,
                        std::int32_t* window_sums, std::uintptr_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(filters, kWarps));
  launch(sums_of_windows, Launch{dim3(blocks), dim3(kSumThreads), 0, stream},
         static_cast<const std::uint32_t*>(weight), filters, r, s, channels / 4, window_sums);
}

void launch_sums(const Summands& summands, std::int32_t* sums, std::uintptr_t stream) {
  const bool along = summands.depth_stride == 1;
  const auto blocks = static_cast<unsigned>(ceil_div(summands.sides, along ? kWarps : 32));
  launch(along ? sums_along_depth : sums_across, Launch{dim3(blocks), dim3(kSumThreads), 0, stream}, summands,
         sums);
}

}  // namespace cnnkernels::int8
