// Multiplies a stage's two tiles one fused multiply-add at a time: fp64 and exact fp32. Each output is one
// chain of fma over depth ascending.
#pragma once

#include "../common/types.h"
#include "../common/vector.h"
#include "shared_tile.cuh"

namespace cnnkernels::gemm {

// A thread's share of one operand's side: Count indices, one in every `Threads`, reading whole chunks. Along
// depth a chunk is one index at several depths, along the side several indices at one depth.
template <class T, class Tile, int Threads>
struct Share {
  static constexpr int kCount = Tile::kExtent / Threads;
  static constexpr int kRun = Tile::kDepthMajor ? 1 : Tile::kChunk;  // neighbouring indices one thread owns
  static_assert(kCount % kRun == 0);

  CNN_DEVICE static int side(int thread, int i) { return (thread + i / kRun * Threads) * kRun + i % kRun; }

  // values[d][i] = tile[side(i), chunk of depths + d]
  CNN_DEVICE static void read(const T* tile, int thread, int depth, T (&values)[Tile::kChunk][kCount]) {
    if constexpr (Tile::kDepthMajor) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const auto chunk = load<Tile::kChunk>(tile + Tile::element(thread, 0, i * Threads, depth));
#pragma unroll
        for (int d = 0; d < Tile::kChunk; ++d) values[d][i] = chunk[d];
      }
    } else {
#pragma unroll
      for (int d = 0; d < Tile::kChunk; ++d) {
#pragma unroll
        for (int i = 0; i < kCount; i += kRun) {
          const auto chunk =
              load<Tile::kChunk>(tile + Tile::element(thread * kRun, 0, i * Threads, depth + d));
#pragma unroll
          for (int j = 0; j < kRun; ++j) values[d][i + j] = chunk[j];
        }
      }
    }
  }
};

template <class T, class TileA, class TileB, int Threads>
class FmaEngine {
 public:
  using Accumulator = T;

  CNN_DEVICE void multiply(const T* a, const T* b) {
    const int row_thread = row_of_thread(), column_thread = column_of_thread();
#pragma unroll
    for (int depth = 0; depth < TileA::kDepth; depth += TileA::kChunk) {
      T row[TileA::kChunk][kRows], column[TileA::kChunk][kColumns];
      RowShare::read(a, row_thread, depth, row);
      ColumnShare::read(b, column_thread, depth, column);
#pragma unroll
      for (int d = 0; d < TileA::kChunk; ++d) {
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
          for (int j = 0; j < kColumns; ++j) sum_[i][j] = multiply_add(row[d][i], column[d][j], sum_[i][j]);
        }
      }
    }
  }

  // Makes of every sum of a column what map(column) makes of it.
  template <class Map>
  CNN_DEVICE void map_columns(Map&& map) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const auto of_column = map(ColumnShare::side(column_of_thread(), j));
#pragma unroll
      for (int i = 0; i < kRows; ++i) sum_[i][j] = of_column(sum_[i][j]);
    }
  }

  // Calls visit(row, column, value) for every output of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        visit(RowShare::side(row_of_thread(), i), ColumnShare::side(column_of_thread(), j), sum_[i][j]);
    }
  }

 private:
  // Threads form a grid over the tile, each warp a 4 x 8 patch of it: 12 chunks feed its 32 threads.
  static constexpr int kAcross = Threads >= 256 ? 16 : 8, kDown = Threads / kAcross;
  static constexpr int kWarpsAcross = kAcross / 8;
  using RowShare = Share<T, TileA, kDown>;
  using ColumnShare = Share<T, TileB, kAcross>;
  static constexpr int kRows = RowShare::kCount, kColumns = ColumnShare::kCount;

  CNN_DEVICE static int row_of_thread() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return warp / kWarpsAcross * 4 + lane / 8;
  }
  CNN_DEVICE static int column_of_thread() {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    return warp % kWarpsAcross * 8 + lane % 8;
  }

  T sum_[kRows][kColumns] = {};
};

}  // namespace cnnkernels::gemm
