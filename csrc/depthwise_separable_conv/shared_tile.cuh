// A tile in shared memory: so many rows (pixels, or filters) of 128 bytes of the reduction, in 16-byte chunks
// whose order within a row is permuted by XOR with the row: 8 neighbouring rows of one chunk, which ldmatrix
// reads together, and the 8 chunks of a row, which copies write together, each meet all 32 banks once.
#pragma once

#include "../common/vector.h"
#include "pair.h"

namespace cnnkernels::depthwise_separable_conv {

template <class T>
struct SharedTile {
  static constexpr int kChunk = kChunkBytes / sizeof(T);
  static constexpr int kDepth = kRowBytes / sizeof(T);

  // The element at which a chunk begins.
  CNN_DEVICE static int chunk(int row, int column) {
    return row * kDepth + (column ^ (row % kChunks)) * kChunk;
  }
};

}  // namespace cnnkernels::depthwise_separable_conv
