// The product of at most 16 rows, where time is what reading b takes: each warp multiplies b's columns
// straight out of global memory, 16 bytes a lane, with no stage in between. Which k a tensor core's place
// stands for does not matter as long as A and B agree, so lane (g, c) takes bytes 16 c to 16 c + 15 of column
// g as its words of two products, and the same bytes of row g of a.
#include "../int8/epilogue.cuh"
#include "../common/launch.h"
#include "../common/shared_limits.h"
#include "../ptx/mma.cuh"
#include "int8_gemm.h"

namespace cnnkernels::int8_gemm {

namespace {

using Words = Vector<std::uint32_t, 4>;
using int8::kRun;

constexpr int kRows = kMostStreamedRows,
              kHalves = kStreamedBytes / 64;  // 64 bytes of a column are two products

struct Stream {
  const std::uint8_t *a, *b;
  std::int64_t a_stride, b_stride;  // of rows, of columns
  std::int32_t m, n, k;
  bool unsigned_a, vectors;
  std::uint8_t unused[2] = {};
};

CNN_DEVICE Words load_words(const std::uint8_t* line, std::int32_t k, bool valid) {
  return valid ? load<4>(reinterpret_cast<const std::uint32_t*>(line + k)) : Words{};
}

// A block makes 8 ColumnTiles columns of the output; its warps share the reduction.
template <int ColumnTiles>
CNN_KERNEL(32 * kMostStreamingWarps, 1)
stream_weights(const Stream s, const __grid_constant__ int8::Epilogue epilogue, void* output) {
  constexpr int kColumns = 8 * ColumnTiles;
  CNN_DYNAMIC_SHARED(memory);
  auto* parts = reinterpret_cast<std::int32_t*>(memory);  // [warp][row][column]
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int warps = static_cast<int>(blockDim.x) / 32, g = lane / 4, c = lane % 4;
  const std::int64_t first_column = std::int64_t(blockIdx.x) * kColumns;

  const std::uint8_t* const upper = s.a + g * s.a_stride;
  const std::uint8_t* const lower = upper + 8 * s.a_stride;
  const bool has_upper = g < s.m, has_lower = g + 8 < s.m;
  const std::uint8_t* const column = s.b + (first_column + g) * s.b_stride;
  std::int32_t sums[1][ColumnTiles][4] = {};

#pragma unroll 1
  for (std::int32_t first = warp * kStreamedBytes; first < s.k; first += warps * kStreamedBytes) {
    Words above[kHalves], below[kHalves], columns[kHalves][ColumnTiles];
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const std::int32_t k = first + 64 * half + 16 * c;
      const bool live = k < s.k;
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j)
        columns[half][j] = load_words(column + 8 * j * s.b_stride, k, live && first_column + 8 * j + g < s.n);
      above[half] = load_words(upper, k, live && has_upper);
      below[half] = load_words(lower, k, live && has_lower);
    }
#pragma unroll
    for (int product = 0; product < 2 * kHalves; ++product) {
      const int half = product / 2, word = product % 2 * 2;
      const std::uint32_t a[1][4] = {
          {above[half][word], below[half][word], above[half][word + 1], below[half][word + 1]}};
      std::uint32_t b[ColumnTiles][2];
#pragma unroll
      for (int j = 0; j < ColumnTiles; ++j) {
        b[j][0] = columns[half][j][word];
        b[j][1] = columns[half][j][word + 1];
      }
      if (s.unsigned_a)
        mma_tile<std::uint8_t>(sums, a, b);
      else
        mma_tile<std::int8_t>(sums, a, b);
    }
  }

#pragma unroll
  for (int j = 0; j < ColumnTiles; ++j) {
#pragma unroll
    for (int v = 0; v < 4; v += 2) {
      std::int32_t* to = parts + (warp * kRows + g + 4 * v) * kColumns + 8 * j + 2 * c;
      store(to, Vector<std::int32_t, 2>{sums[0][j][v], sums[0][j][v + 1]});
    }
  }
  __syncthreads();

  constexpr int kRuns = kColumns / kRun;
#pragma unroll 1
  for (int i = thread; i < s.m * kRuns; i += static_cast<int>(blockDim.x)) {
    const std::int64_t row = i / kRuns, place = first_column + i % kRuns * kRun;
    if (place >= s.n) continue;
    const int count = static_cast<int>(min(s.n - place, std::int64_t(kRun)));
    Vector<std::int32_t, kRun> total{};
#pragma unroll 1
    for (int w = 0; w < warps; ++w) {
      const auto part = load<kRun>(parts + (w * kRows + row) * kColumns + i % kRuns * kRun);
#pragma unroll
      for (int e = 0; e < kRun; ++e) total[e] = int8::wrapping_subtract(total[e], -1, part[e]);
    }
    const int8::Rows rows{0, 1, 1, row, row * s.n + place, s.n};
    int8::finish(epilogue, int8::Columns(epilogue, place, count, s.vectors), rows, output,
                 [&](int) { return total; });
  }
}

}  // namespace

void launch_stream_weights(const Problem& p, const Plan& plan, const int8::Epilogue& epilogue, void* output,
                           std::uintptr_t stream) {
  const Stream how{static_cast<const std::uint8_t*>(p.a.data),
                   static_cast<const std::uint8_t*>(p.b.data),
                   p.a.row_stride,
                   p.b.column_stride,
                   static_cast<std::int32_t>(p.m),
                   static_cast<std::int32_t>(p.n),
                   static_cast<std::int32_t>(p.k),
                   p.unsigned_a,
                   int8::whole_runs(epilogue, output, p.n)};
  static_assert(kMostStreamingWarps * kRows * 32 * sizeof(std::int32_t) <= kEveryBlockBytes);
  const Launch where{
      dim3(static_cast<unsigned>(ceil_div(p.n, plan.stream_columns))),
      dim3(static_cast<unsigned>(32 * plan.warps)),
      static_cast<std::size_t>(plan.warps * kRows * plan.stream_columns) * sizeof(std::int32_t), stream};
  launch(plan.stream_columns == 32 ? stream_weights<4> : stream_weights<1>, where, how, epilogue, output);
}

}  // namespace cnnkernels::int8_gemm
