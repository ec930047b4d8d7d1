// Multiplies a stage's two tiles on tensor cores (mma.sync): fp16 and bf16 by m16n8k16, tf32 by m16n8k8, sums
// in fp32. Either way an instruction consumes 32 bytes of the reduction, so 16-bit and tf32 operands share
// every address.
#pragma once

#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "shared_tile.cuh"
#include "warp_tile.cuh"

namespace cnnkernels::gemm {

// In is float16, bfloat16 or tf32; T is what lies in shared memory. A warp makes WarpRows x WarpColumns
// outputs.
template <class In, class T, class TileA, class TileB, int WarpRows, int WarpColumns>
class MmaEngine {
 public:
  using Accumulator = float;

  CNN_DEVICE void multiply(const T* a, const T* b) {
#pragma unroll
    for (int depth = 0; depth < TileA::kDepth; depth += kStep) {
      std::uint32_t rows[kRowTiles][4], columns[kColumnTiles][2];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) read_rows(a, 16 * i, depth, rows[i]);
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) read_columns(b, 8 * j, depth, columns[j], columns[j + 1]);
      mma_tile<In>(sum_, rows, columns);
    }
  }

  // Makes of every sum of a column what map(column) makes of it.
  template <class Map>
  CNN_DEVICE void map_columns(Map&& map) {
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const auto of_column = map(Warp::column(j, v));
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          sum_[i][j][v] = of_column(sum_[i][j][v]);
          sum_[i][j][2 + v] = of_column(sum_[i][j][2 + v]);
        }
      }
    }
  }

  // Calls visit(row, column, value) for every output of this thread.
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
  using Warp = WarpTile<WarpRows, WarpColumns, TileB::kExtent / WarpColumns>;
  static constexpr int kRowTiles = Warp::kRowTiles, kColumnTiles = Warp::kColumnTiles;
  static constexpr int kStep = 32 / sizeof(T);     // of the reduction, for one instruction
  static constexpr int kHalf = kStep / 2;          // one 16-byte chunk
  static constexpr bool kRounds = sizeof(T) == 4;  // fp32 in shared memory, to tf32

  // 16 of the warp's rows by one step. ldmatrix transposes 16-bit elements only: 32-bit ones that lie along
  // the side are read one by one.
  CNN_DEVICE static void read_rows(const T* tile, int row, int depth, std::uint32_t (&to)[4]) {
    const int first = Warp::first_row(), lower = Warp::lower_rows(), half = Warp::half_of_rows() * kHalf;
    if constexpr (TileA::kDepthMajor) {
      ldmatrix_x4(to, tile + TileA::element(first + Warp::named() + lower, half, row, depth));
      if constexpr (kRounds) round_to_tf32(to);
    } else if constexpr (sizeof(T) == 2) {
      ldmatrix_x4_trans(to, tile + TileA::element(first + lower, Warp::named() + half, row, depth));
    } else {
      const int l = Warp::lane();
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int ahead = v % 2 * 8, deeper = v / 2 * 4;
        to[v] = float_to_tf32(tile[TileA::element(first + l / 4, l % 4, row + ahead, depth + deeper)]);
      }
    }
  }

  // 16 of the warp's columns by one step.
  CNN_DEVICE static void read_columns(const T* tile, int column, int depth, std::uint32_t (&left)[2],
                                      std::uint32_t (&right)[2]) {
    const int first = Warp::first_column(), next = Warp::next_columns(),
              half = Warp::half_of_columns() * kHalf;
    std::uint32_t both[4];
    if constexpr (TileB::kDepthMajor) {
      ldmatrix_x4(both, tile + TileB::element(first + Warp::named() + next, half, column, depth));
      if constexpr (kRounds) round_to_tf32(both);
    } else if constexpr (sizeof(T) == 2) {
      ldmatrix_x4_trans(both, tile + TileB::element(first + next, Warp::named() + half, column, depth));
    } else {
      const int l = Warp::lane();
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int ahead = v / 2 * 8, deeper = v % 2 * 4;
        both[v] = float_to_tf32(tile[TileB::element(first + l / 4, l % 4, column + ahead, depth + deeper)]);
      }
    }
    Warp::take_apart(both, left, right);
  }

  float sum_[kRowTiles][kColumnTiles][4] = {};
};

}  // namespace cnnkernels::gemm
