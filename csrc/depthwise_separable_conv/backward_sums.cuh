// The two products of the backward pass, over a tile of the error [pixel][filter]:
//
//   ErrorSums    the intermediate's error [pixel][channel] += error [pixel][filter] * filters
//   [filter][channel] WeightSums   the filters' gradient [filter][channel] += error, turned [filter][pixel] *
//   middle [pixel][channel]
//
// All tiles are SharedTiles. On tensor cores (fp16, bf16) sums are fp32, and ldmatrix turns what is not dense
// along the reduction; fp64 and exact fp32 are chains of fused multiply-adds in order.
#pragma once

#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "depthwise.cuh"

namespace cnnkernels::depthwise_separable_conv {

// Eight warps, two across 64 columns, four down the rows.
template <class T, int Rows>
class MmaErrorSums {
 public:
  CNN_DEVICE void multiply(const T* error, const T* filters) {
    const int l = lane(), within = l % 8 + l / 8 % 2 * 8;
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {
      std::uint32_t a[kRowTiles][4], b[kColumnTiles][2];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i)
        ldmatrix_x4(a[i], error + Tile::chunk(first_row() + i * 16 + within, 2 * step + l / 16));
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t both[4];
        ldmatrix_x4_trans(both, filters + Tile::chunk(step * 16 + within, first_chunk() + j + l / 16));
#pragma unroll
        for (int v = 0; v < 4; ++v) b[j + v / 2][v % 2] = both[v];
      }
      mma_tile<T>(sum_, a, b);
    }
  }

  // Calls visit(pixel, channel, sum) for every sum of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
    const int row = first_row() + lane() / 4, column = first_chunk() * 8 + lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) visit(row + 16 * i + 8 * (v / 2), column + 8 * j + v % 2, sum_[i][j][v]);
      }
    }
  }

 private:
  using Tile = SharedTile<T>;
  static constexpr int kDepth = Tile::kDepth, kRowTiles = Rows / 64, kColumnTiles = 4;

  CNN_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  CNN_DEVICE static int first_row() { return static_cast<int>(threadIdx.x) / 64 * (16 * kRowTiles); }
  CNN_DEVICE static int first_chunk() { return static_cast<int>(threadIdx.x) / 32 % 2 * kColumnTiles; }

  float sum_[kRowTiles][kColumnTiles][4] = {};
};

// Eight warps, two across 64 channels, four down 64 filters.
template <class T, int Rows>
class MmaWeightSums {
 public:
  CNN_DEVICE void multiply(const T* error, const T* middle) {
    const int l = lane(), within = l % 8;
#pragma unroll
    for (int step = 0; step < Rows / 16; ++step) {
      // Of the error the matrices are both halves of 16 filters at the first eight pixels, then at the
      // second; of the middle both halves of the pixels at the first eight channels.
      std::uint32_t a[1][4], b[kColumnTiles][2];
      ldmatrix_x4_trans(a[0],
                        error + Tile::chunk(step * 16 + l / 16 * 8 + within, warp() / 2 * 2 + l / 8 % 2));
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t both[4];
        const int pixel = step * 16 + l / 8 % 2 * 8 + within;
        ldmatrix_x4_trans(both, middle + Tile::chunk(pixel, warp() % 2 * kColumnTiles + j + l / 16));
#pragma unroll
        for (int v = 0; v < 4; ++v) b[j + v / 2][v % 2] = both[v];
      }
      mma_tile<T>(sum_, a, b);
    }
  }

  // Calls visit(filter, channel, sum) for every sum of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
    const int row = warp() / 2 * 16 + lane() / 4, column = warp() % 2 * kColumnTiles * 8 + lane() % 4 * 2;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) visit(row + 8 * (v / 2), column + 8 * j + v % 2, sum_[0][j][v]);
    }
  }

 private:
  using Tile = SharedTile<T>;
  static constexpr int kColumnTiles = 4;

  CNN_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  CNN_DEVICE static int warp() { return static_cast<int>(threadIdx.x) / 32; }

  float sum_[1][kColumnTiles][4] = {};
};

template <class T>
CNN_DEVICE T element(const T* tile, int row, int column) {
  constexpr int kChunk = SharedTile<T>::kChunk;
  return tile[SharedTile<T>::chunk(row, column / kChunk) + column % kChunk];
}

// Threads form a grid of 8 across the channels.
template <class T, int Rows>
class FmaErrorSums {
 public:
  CNN_DEVICE void multiply(const T* error, const T* filters) {
#pragma unroll 2
    for (int filter = 0; filter < kDepth; ++filter) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const T value = element(error, row_of(i), filter);
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
          sum_[i][j] = multiply_add(value, element(filters, filter, column_of(j)), sum_[i][j]);
      }
    }
  }

  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) visit(row_of(i), column_of(j), sum_[i][j]);
    }
  }

 private:
  static constexpr int kDepth = SharedTile<T>::kDepth;
  static constexpr int kAcross = 8, kDown = Rows / kStrip * kChunks / kAcross;
  static constexpr int kRows = Rows / kDown, kColumns = kDepth / kAcross;

  CNN_DEVICE static int row_of(int i) { return static_cast<int>(threadIdx.x) / kAcross + i * kDown; }
  CNN_DEVICE static int column_of(int j) { return static_cast<int>(threadIdx.x) % kAcross + j * kAcross; }

  T sum_[kRows][kColumns] = {};
};

// Neighbouring threads have neighbouring channels.
template <class T, int Rows>
class FmaWeightSums {
 public:
  CNN_DEVICE void multiply(const T* error, const T* middle) {
#pragma unroll 2
    for (int pixel = 0; pixel < Rows; ++pixel) {
      const T value = element(middle, pixel, channel());
#pragma unroll
      for (int i = 0; i < kFilters; ++i)
        sum_[i] = multiply_add(element(error, pixel, filter_of(i)), value, sum_[i]);
    }
  }

  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < kFilters; ++i) visit(filter_of(i), channel(), sum_[i]);
  }

 private:
  static constexpr int kDepth = SharedTile<T>::kDepth, kDown = Rows / kStrip * kChunks / kDepth;
  static constexpr int kFilters = kDepth / kDown;

  CNN_DEVICE static int channel() { return static_cast<int>(threadIdx.x) % kDepth; }
  CNN_DEVICE static int filter_of(int i) { return static_cast<int>(threadIdx.x) / kDepth + i * kDown; }

  T sum_[kFilters] = {};
};

}  // namespace cnnkernels::depthwise_separable_conv
