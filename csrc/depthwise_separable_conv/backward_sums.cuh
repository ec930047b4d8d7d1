// The two products of the backward pass, over a tile of the error [pixel][filter]:
//
//   ErrorSums    the intermediate's error [pixel][channel] += error [pixel][filter] * filters
//   [filter][channel] WeightSums   the filters' gradient [filter][channel] += error, turned [filter][pixel] *
//   middle [pixel][channel]
//
// All tiles are SharedTiles. On tensor cores (fp16, bf16) sums are fp32, and ldmatrix turns what is not dense
// along the reduction; fp64 and exact fp32 are chains of fused multiply-adds in order.
#pragma once

#include "../gemm/warp_tile.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "depthwise.cuh"

namespace cnnkernels::depthwise_separable_conv {

// Eight warps, two across 64 columns, four down the rows.
template <class T, int Rows>
class MmaErrorSums {
 public:
  CNN_DEVICE void multiply(const T* error, const T* filters) {
    const int row = Warp::first_row() + Warp::named() + Warp::lower_rows();
    const int filter = Warp::named() + Warp::half_of_columns() * 8;
    const int channel = Warp::first_column() + Warp::next_columns();
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {
      std::uint32_t a[kRowTiles][4], b[kColumnTiles][2];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i)
        ldmatrix_x4(a[i], error + Tile::chunk(row + i * 16, 2 * step + Warp::half_of_rows()));
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t both[4];
        ldmatrix_x4_trans(both, filters + Tile::chunk(step * 16 + filter, channel / 8 + j));
        Warp::take_apart(both, b[j], b[j + 1]);
      }
      mma_tile<T>(sum_, a, b);
    }
  }

  // Calls visit(pixel, channel, sum) for every sum of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) visit(Warp::row(i, v), Warp::column(j, v), sum_[i][j][v]);
      }
    }
  }

 private:
  using Tile = SharedTile<T>;
  using Warp = gemm::WarpTile<Rows / 4, 32, 2>;
  static constexpr int kDepth = Tile::kDepth;
  static constexpr int kRowTiles = Warp::kRowTiles, kColumnTiles = Warp::kColumnTiles;

  float sum_[kRowTiles][kColumnTiles][4] = {};
};

// Eight warps, two across 64 channels, four down 64 filters.
template <class T, int Rows>
class MmaWeightSums {
 public:
  CNN_DEVICE void multiply(const T* error, const T* middle) {
    const int filter = Warp::first_row() + Warp::lower_rows();
    const int channel = Warp::first_column() + Warp::next_columns();
#pragma unroll
    for (int step = 0; step < Rows / 16; ++step) {
      const int pixel = step * 16 + Warp::named();
      std::uint32_t a[1][4], b[kColumnTiles][2];
      ldmatrix_x4_trans(a[0], error + Tile::chunk(pixel + Warp::half_of_rows() * 8, filter / 8));
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        std::uint32_t both[4];
        ldmatrix_x4_trans(both, middle + Tile::chunk(pixel + Warp::half_of_columns() * 8, channel / 8 + j));
        Warp::take_apart(both, b[j], b[j + 1]);
      }
      mma_tile<T>(sum_, a, b);
    }
  }

  // Calls visit(filter, channel, sum) for every sum of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int v = 0; v < 4; ++v) visit(Warp::row(0, v), Warp::column(j, v), sum_[0][j][v]);
    }
  }

 private:
  using Tile = SharedTile<T>;
  using Warp = gemm::WarpTile<16, 32, 2>;
  static constexpr int kColumnTiles = Warp::kColumnTiles;

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
