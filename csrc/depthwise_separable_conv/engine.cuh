// The pointwise half: multiplies a stage's tile of the intermediate, [pixel][channel], by the tile of the
// filters, [filter][channel]. On tensor cores (fp16, bf16, tf32) sums are fp32; fp64 and exact fp32 are
// chains of fused multiply-adds over the channels in their order. What an engine starts here is done when it
// returns, so there is nothing to show or to wait for.
#pragma once

#include <type_traits>

#include "../gemm/warp_tile.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "depthwise.cuh"

namespace cnnkernels::depthwise_separable_conv {

// In is float16, bfloat16 or tf32; T is what lies in shared memory. Two warps share the columns, the others
// divide the rows: each has 32 of them.
template <class In, class T, int Rows, int Columns>
class MmaEngine {
 public:
  CNN_DEVICE void start(const T* pixels, const T* filters) {
    const T* rows = pixels + (Warp::first_row() + Warp::named() + Warp::lower_rows()) * kDepth;
    const T* columns = filters + (Warp::first_column() + Warp::named() + Warp::next_columns()) * kDepth;
#pragma unroll
    for (int step = 0; step < kRowBytes / 32; ++step) {
      const int row_chunk = ((2 * step + Warp::half_of_rows()) ^ Warp::named()) * kChunk;
      const int column_chunk = ((2 * step + Warp::half_of_columns()) ^ Warp::named()) * kChunk;
      std::uint32_t a[kRowTiles][4], b[kColumnTiles][2];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        ldmatrix_x4(a[i], rows + i * 16 * kDepth + row_chunk);
        if constexpr (kRounds) gemm::round_to_tf32(a[i]);
      }
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t both[4];
        ldmatrix_x4(both, columns + j * 8 * kDepth + column_chunk);
        if constexpr (kRounds) gemm::round_to_tf32(both);
        Warp::take_apart(both, b[j], b[j + 1]);
      }
      mma_tile<In>(sum_, a, b);
    }
  }

  CNN_DEVICE void show() {}
  CNN_DEVICE void wait() {}

  // Calls visit(row, column, sum) for every output of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) visit(Warp::row(i, v), Warp::column(j, v), sum_[i][j][v]);
      }
    }
  }

 private:
  static constexpr int kDepth = SharedTile<T>::kDepth, kChunk = SharedTile<T>::kChunk;
  using Warp = gemm::WarpTile<32, Columns / 2, 2>;
  static constexpr int kRowTiles = Warp::kRowTiles, kColumnTiles = Warp::kColumnTiles;
  static constexpr bool kRounds = std::is_same_v<In, tf32>;

  float sum_[kRowTiles][kColumnTiles][4] = {};
};

// Threads form a grid of 8 across; a warp reads 4 rows and 8 columns at a time.
template <class T, int Rows, int Columns>
class FmaEngine {
 public:
  CNN_DEVICE void start(const T* pixels, const T* filters) {
#pragma unroll 2
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      T row[kRows][kChunk];
#pragma unroll
      for (int i = 0; i < kRows; ++i) read(pixels, row_of(i), chunk, row[i]);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        T column[kChunk];
        read(filters, column_of(j), chunk, column);
#pragma unroll
        for (int d = 0; d < kChunk; ++d) {
#pragma unroll
          for (int i = 0; i < kRows; ++i) sum_[i][j] = multiply_add(row[i][d], column[d], sum_[i][j]);
        }
      }
    }
  }

  CNN_DEVICE void show() {}
  CNN_DEVICE void wait() {}

  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) visit(row_of(i), column_of(j), sum_[i][j]);
    }
  }

 private:
  using Tile = SharedTile<T>;
  static constexpr int kChunk = Tile::kChunk;
  static constexpr int kAcross = 8, kDown = Rows / kStrip * kChunks / kAcross;
  static constexpr int kRows = Rows / kDown, kColumns = Columns / kAcross;

  CNN_DEVICE static int row_of(int i) { return static_cast<int>(threadIdx.x) / kAcross + i * kDown; }
  CNN_DEVICE static int column_of(int j) { return static_cast<int>(threadIdx.x) % kAcross + j * kAcross; }
  CNN_DEVICE static void read(const T* tile, int row, int chunk, T (&values)[kChunk]) {
    const auto vector = load<kChunk>(tile + Tile::chunk(row, chunk));
#pragma unroll
    for (int d = 0; d < kChunk; ++d) values[d] = vector[d];
  }

  T sum_[kRows][kColumns] = {};
};

}  // namespace cnnkernels::depthwise_separable_conv
