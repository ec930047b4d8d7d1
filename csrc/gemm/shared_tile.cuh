// An operand's tile in shared memory: `Extent` rows or columns of the output by 64 bytes of the reduction, in
// 16-byte chunks whose order within a row is permuted by XOR, so that neither filling nor reading it meets a
// bank twice.
#pragma once

#include "../common/device.h"

namespace cnnkernels::gemm {

inline constexpr int kChunkBytes = 16;
inline constexpr int kTileRowBytes = 64;  // of the reduction that one stage holds for each row and column

// DepthMajor: a row is one side index, its 64 bytes run along the reduction.
// Otherwise a row is one depth index and runs along the side.
template <class T, int Extent, bool DepthMajor>
struct SharedTile {
  static constexpr bool kDepthMajor = DepthMajor;
  static constexpr int kExtent = Extent;
  static constexpr int kChunk = kChunkBytes / sizeof(T);
  static constexpr int kDepth = kTileRowBytes / sizeof(T);
  static constexpr int kRowChunks = DepthMajor ? kDepth / kChunk : Extent / kChunk;
  static constexpr int kRows = DepthMajor ? Extent : kDepth;
  static constexpr int kChunks = kRows * kRowChunks;
  static constexpr int kElements = Extent * kDepth;

  // Who reads together decides the permutation. ldmatrix reads 8 neighbouring rows of one chunk: with 64-byte
  // rows two of them fill the 32 banks, so every second row moves on; with longer ones each row does. tf32
  // rows along the side are read by 4 depths x 8 sides, two chunks of each row. fp64 ones are read along the
  // row.
  CNN_DEVICE static int permute(int row) {
    if constexpr (kRowChunks == 4) return (row >> 1) & 3;
    if constexpr (sizeof(T) == 2) return row & 7;
    if constexpr (sizeof(T) == 4) return (row & 3) << 1;
    return 0;
  }
  // It repeats after so many rows, and moves chunks within groups of so many.
  static constexpr int kRowPeriod = kRowChunks == 4 || sizeof(T) == 2 ? 8 : sizeof(T) == 4 ? 4 : 1;
  static constexpr int kGroup = kRowChunks == 4 ? 4 : 8;

  // The element at which a chunk begins.
  CNN_DEVICE static int chunk(int row, int column) {
    return (row * kRowChunks + (column ^ permute(row))) * kChunk;
  }

  // One element, by side and depth.
  CNN_DEVICE static int element(int side, int depth) {
    const int row = DepthMajor ? side : depth, along = DepthMajor ? depth : side;
    return chunk(row, along / kChunk) + along % kChunk;
  }

  // The same with known distances ahead of a place that depends on the thread: what lies whole periods ahead
  // is a constant distance in memory, so one register holds the address of many elements.
  CNN_DEVICE static int element(int side, int depth, int sides_ahead, int depths_ahead) {
    constexpr int kSides = DepthMajor ? kRowPeriod : kGroup * kChunk;
    constexpr int kDepths = DepthMajor ? kGroup * kChunk : kRowPeriod;
    constexpr int kSideStride = DepthMajor ? kDepth : 1, kDepthStride = DepthMajor ? 1 : Extent;
    return element(side + sides_ahead % kSides, depth + depths_ahead % kDepths) +
           sides_ahead / kSides * kSides * kSideStride + depths_ahead / kDepths * kDepths * kDepthStride;
  }
};

}  // namespace cnnkernels::gemm
