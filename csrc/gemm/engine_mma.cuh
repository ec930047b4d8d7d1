// Multiplies a stage's two tiles on tensor cores (mma.sync): fp16 and bf16 by m16n8k16, tf32 by m16n8k8, sums
// in fp32. Either way an instruction consumes 32 bytes of the reduction, so 16-bit and tf32 operands share
// every address.
#pragma once

#include <cstring>

#include "../ptx/convert.cuh"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "shared_tile.cuh"

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
    const int column = first_column() + lane() % 4 * 2;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const auto of_column = map(column + 8 * j + v);
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
    const int row = first_row() + lane() / 4, column = first_column() + lane() % 4 * 2;
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
  static constexpr int kRowTiles = WarpRows / 16, kColumnTiles = WarpColumns / 8;
  static constexpr int kStep = 32 / sizeof(T);  // of the reduction, for one instruction
  static constexpr int kHalf = kStep / 2;       // one 16-byte chunk
  static constexpr int kWarpsAcross = TileB::kExtent / WarpColumns;
  static constexpr bool kRounds =
      sizeof(T) == 4;  // fp32 in shared memory becomes tf32 on its way to the registers
  static_assert(kColumnTiles % 2 == 0);

  CNN_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  CNN_DEVICE static int first_row() { return static_cast<int>(threadIdx.x) / 32 / kWarpsAcross * WarpRows; }
  CNN_DEVICE static int first_column() {
    return static_cast<int>(threadIdx.x) / 32 % kWarpsAcross * WarpColumns;
  }

  template <int Count>
  CNN_DEVICE static void round(std::uint32_t (&registers)[Count]) {
    if constexpr (kRounds) {
#pragma unroll
      for (std::uint32_t& bits : registers) {
        float value;
        std::memcpy(&value, &bits, sizeof(value));
        bits = float_to_tf32(value);
      }
    }
  }

  // 16 of the warp's rows by one step. ldmatrix lane l names row l % 8 of matrix l / 8; the four matrices are
  // the upper and lower eight rows at the first half of the step, then at the second. ldmatrix transposes
  // 16-bit elements only: 32-bit ones that lie along the side are read one by one.
  CNN_DEVICE static void read_rows(const T* tile, int row, int depth, std::uint32_t (&to)[4]) {
    const int l = lane(), within = l % 8, lower = l / 8 % 2 * 8, half = l / 16 * kHalf;
    if constexpr (TileA::kDepthMajor) {
      ldmatrix_x4(to, tile + TileA::element(first_row() + within + lower, half, row, depth));
      round(to);
    } else if constexpr (sizeof(T) == 2) {
      ldmatrix_x4_trans(to, tile + TileA::element(first_row() + lower, within + half, row, depth));
    } else {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int ahead = v % 2 * 8, deeper = v / 2 * 4;
        to[v] = float_to_tf32(tile[TileA::element(first_row() + l / 4, l % 4, row + ahead, depth + deeper)]);
      }
    }
  }

  // 16 of the warp's columns by one step: the first eight at both halves, then the next eight.
  CNN_DEVICE static void read_columns(const T* tile, int column, int depth, std::uint32_t (&left)[2],
                                      std::uint32_t (&right)[2]) {
    const int l = lane(), within = l % 8, half = l / 8 % 2 * kHalf, second = l / 16 * 8;
    std::uint32_t both[4];
    if constexpr (TileB::kDepthMajor) {
      ldmatrix_x4(both, tile + TileB::element(first_column() + within + second, half, column, depth));
      round(both);
    } else if constexpr (sizeof(T) == 2) {
      ldmatrix_x4_trans(both, tile + TileB::element(first_column() + second, within + half, column, depth));
    } else {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const int ahead = v / 2 * 8, deeper = v % 2 * 4;
        both[v] = float_to_tf32(
            tile[TileB::element(first_column() + l / 4, l % 4, column + ahead, depth + deeper)]);
      }
    }
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      left[v] = both[v];
      right[v] = both[2 + v];
    }
  }

  float sum_[kRowTiles][kColumnTiles][4] = {};
};

}  // namespace cnnkernels::gemm
