// The pointwise half: multiplies a stage's tile of the intermediate, [pixel][channel], by the tile of the
// filters, [filter][channel]. On tensor cores (fp16, bf16, tf32) sums are fp32; fp64 and exact fp32 are
// chains of fused multiply-adds over the channels in their order.
#pragma once

#include <cstring>
#include <type_traits>

#include "../ptx/convert.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "depthwise.cuh"

namespace cnnkernels::depthwise_separable_conv {

// In is float16, bfloat16 or tf32; T is what lies in shared memory. Two warps share the columns, the others
// divide the rows: each has 32 of them.
template <class In, class T, int Rows, int Columns>
class MmaEngine {
 public:
  CNN_DEVICE void multiply(const T* pixels, const T* filters) {
    const int l = lane(), within = l % 8;
    const T* rows = pixels + (first_row() + within + l / 8 % 2 * 8) * kDepth;
    const T* columns = filters + (first_column() + within + l / 16 * 8) * kDepth;
#pragma unroll
    for (int step = 0; step < kRowBytes / 32; ++step) {
      // ldmatrix lane l names row l % 8 of matrix l / 8. Of the rows these are the upper and the lower eight
      // at the first 16 bytes of the step, then at the second; of the columns both halves of the first eight.
      const int row_chunk = ((2 * step + l / 16) ^ within) * kChunk;
      const int column_chunk = ((2 * step + l / 8 % 2) ^ within) * kChunk;
      std::uint32_t a[kRowTiles][4], b[kColumnTiles][2];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        ldmatrix_x4(a[i], rows + i * 16 * kDepth + row_chunk);
        round(a[i]);
      }
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t both[4];
        ldmatrix_x4(both, columns + j * 8 * kDepth + column_chunk);
        round(both);
#pragma unroll
        for (int v = 0; v < 4; ++v) b[j + v / 2][v % 2] = both[v];
      }
      mma_tile<In>(sum_, a, b);
    }
  }

  // Calls visit(row, column, sum) for every output of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
    const int row = first_row() + lane() / 4, column = first_column() + lane() % 4 * 2;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i)
          visit(row + 16 * i + 8 * (v / 2), column + 8 * j + v % 2, sum_[i][j][v]);
      }
    }
  }

 private:
  static constexpr int kDepth = SharedTile<T>::kDepth, kChunk = SharedTile<T>::kChunk;
  static constexpr int kWarpColumns = Columns / 2;
  static constexpr int kRowTiles = 2, kColumnTiles = kWarpColumns / 8;
  static_assert(kColumnTiles % 2 == 0);

  CNN_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  CNN_DEVICE static int first_row() { return static_cast<int>(threadIdx.x) / 64 * 32; }
  CNN_DEVICE static int first_column() { return static_cast<int>(threadIdx.x) / 32 % 2 * kWarpColumns; }

  // fp32 in shared memory becomes tf32 on its way to the tensor cores.
  template <int Count>
  CNN_DEVICE static void round(std::uint32_t (&registers)[Count]) {
    if constexpr (std::is_same_v<In, tf32>) {
#pragma unroll
      for (std::uint32_t& bits : registers) {
        float value;
        std::memcpy(&value, &bits, sizeof(value));
        bits = float_to_tf32(value);
      }
    }
  }

  float sum_[kRowTiles][kColumnTiles][4] = {};
};

// Threads form a grid of 8 across; a warp reads 4 rows and 8 columns at a time.
template <class T, int Rows, int Columns>
class FmaEngine {
 public:
  CNN_DEVICE void multiply(const T* pixels, const T* filters) {
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
