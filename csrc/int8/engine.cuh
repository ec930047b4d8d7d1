// Multiplies a stage's two tiles on tensor cores: int8, or uint8 rows by int8 columns, m16n8k32, sums in
// int32.
#pragma once

#include "../gemm/warp_tile.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "loader.cuh"

namespace cnnkernels::int8 {

// A warp makes WarpRows x WarpColumns of the block's Rows x Columns outputs.
template <int Columns, int WarpRows, int WarpColumns>
class Engine {
 public:
  CNN_DEVICE void multiply(const std::uint8_t* a, const std::uint8_t* b, bool unsigned_a) {
    std::uint32_t rows[kSteps][kRowTiles][4], columns[kSteps][kColumnTiles][2];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) read_rows(a, 16 * i, step, rows[step][i]);
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2)
        read_columns(b, 8 * j, step, columns[step][j], columns[step][j + 1]);
    }
    if (unsigned_a) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) mma_tile<std::uint8_t>(sum_, rows[step], columns[step]);
    } else {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) mma_tile<std::int8_t>(sum_, rows[step], columns[step]);
    }
  }

  // Calls visit(row, column, two neighbouring sums) for every output of this thread.
  template <class Visit>
  CNN_DEVICE void each_pair(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int v = 0; v < 4; v += 2)
          visit(Warp::row(i, v), Warp::column(j, v),
                Vector<std::int32_t, 2>{sum_[i][j][v], sum_[i][j][v + 1]});
      }
    }
  }

 private:
  using Warp = gemm::WarpTile<WarpRows, WarpColumns, Columns / WarpColumns>;
  static constexpr int kRowTiles = Warp::kRowTiles, kColumnTiles = Warp::kColumnTiles,
                       kSteps = kStageBytes / 32;

  // 16 of the warp's rows by 32 bytes. Whole periods ahead are a constant distance in memory.
  CNN_DEVICE static void read_rows(const std::uint8_t* tile, int row, int step, std::uint32_t (&to)[4]) {
    const int first = Warp::first_row() + Warp::named() + Warp::lower_rows();
    ldmatrix_x4(to, tile + place_in_tile(first, 2 * step + Warp::half_of_rows()) + row * kStageBytes);
  }

  // 16 of the warp's columns.
  CNN_DEVICE static void read_columns(const std::uint8_t* tile, int column, int step,
                                      std::uint32_t (&left)[2], std::uint32_t (&right)[2]) {
    const int first = Warp::first_column() + Warp::named() + Warp::next_columns();
    std::uint32_t both[4];
    ldmatrix_x4(both, tile + place_in_tile(first, 2 * step + Warp::half_of_columns()) + column * kStageBytes);
    Warp::take_apart(both, left, right);
  }

  std::int32_t sum_[kRowTiles][kColumnTiles][4] = {};
};

}  // namespace cnnkernels::int8
