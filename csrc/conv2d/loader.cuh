// Brings an operand's tiles from global to shared memory, one stage of the reduction after another.
#pragma once

#include "../common/vector.h"
#include "../ptx/cp_async.cuh"
#include "problem.h"
#include "shared_tile.cuh"

namespace cnnkernels::conv2d {

// A thread fills the same chunks of every tile. It keeps their places on the axis that stays (the side), one
// for all where they coincide, and a cursor on the one that moves (the depth), from which it steps to each
// chunk.
template <class T, int Extent, Loader kLoader, int Threads>
class OperandLoader {
 public:
  using Tile = SharedTile<T, Extent, kLoader != Loader::along_side>;

  // The tile begins at `first_side`; the reduction runs over `depth` indices from `first_depth`.
  CNN_DEVICE OperandLoader(const Operand& operand, std::int64_t group, std::int64_t first_side,
                           std::int64_t first_depth, std::int32_t depth)
      : operand_(operand),
        data_(static_cast<const T*>(operand.data) + group * operand.group_stride),
        left_(depth) {
    const Cursor tile_side = seek(operand.side, first_side);
    const std::int64_t sides = operand.side.extent - first_side;
#pragma unroll
    for (int i = 0; i < kSides; ++i) {
      Cursor cursor = tile_side;
      step(operand.side, cursor, side_of(i));
      side_[i] = cursor.place;
      side_[i].offset += operand.origin.offset;
      side_[i].h += operand.origin.h;
      side_[i].w += operand.origin.w;
      if (side_of(i) >= sides) side_[i].h = kOutside;
    }
    depth_ = seek(operand.depth, first_depth);
    step(operand.depth, depth_, depth_of(0));
  }

  // Starts the next tile on its way. What could not be sent off at once is held in registers until finish().
  CNN_DEVICE void start(T* tile) {
    Cursor depth = depth_;
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const Place& side = side_[kSides == 1 ? 0 : i];
      if (i > 0 && kLoader != Loader::along_depth) step(operand_.depth, depth, depth_of(i) - depth_of(i - 1));
      if constexpr (kLoader == Loader::elements) {
        gather(i, side, depth, tile);
      } else {
        const bool valid = inside(side, depth.place) && depth_of(i) < left_;
        cp_async<kChunkBytes>(tile + slot(i), valid ? data_ + side.offset + depth.place.offset : data_,
                              valid);
      }
    }
    step(operand_.depth, depth_, Tile::kDepth);
    left_ -= Tile::kDepth;
  }

  CNN_DEVICE void finish(T* tile) {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kOwned; ++i) store(tile + slot(i), held_[i]);
    }
  }

 private:
  static constexpr int kOwned = Tile::kChunks / Threads;
  static constexpr int kSides = kLoader == Loader::along_depth ? kOwned : 1;
  static constexpr bool kHeld =
      kLoader == Loader::elements && sizeof(T) == 2;  // cp.async moves 4 bytes or more
  static constexpr std::int32_t kOutside = -(std::int32_t(1) << 30);
  static_assert(Tile::kChunks % Threads == 0 && (kLoader != Loader::elements || Threads % Extent == 0));

  // The row and column of the tile at which this thread's i-th chunk lies. Copies run along the row so that a
  // warp reads whole lines; single elements run down the side, where an image's windows lie together.
  CNN_DEVICE static int row_of(int i) {
    const int chunk = static_cast<int>(threadIdx.x) + i * Threads;
    return kLoader == Loader::elements ? chunk % Extent : chunk / Tile::kRowChunks;
  }
  CNN_DEVICE static int column_of(int i) {
    const int chunk = static_cast<int>(threadIdx.x) + i * Threads;
    return kLoader == Loader::elements ? chunk / Extent : chunk % Tile::kRowChunks;
  }
  CNN_DEVICE static int slot(int i) { return Tile::chunk(row_of(i), column_of(i)); }
  CNN_DEVICE static int side_of(int i) { return Tile::kDepthMajor ? row_of(i) : column_of(i) * Tile::kChunk; }
  CNN_DEVICE static int depth_of(int i) {
    return Tile::kDepthMajor ? column_of(i) * Tile::kChunk : row_of(i);
  }

  CNN_DEVICE bool inside(const Place& side, const Place& depth) const {
    return static_cast<std::uint32_t>(side.h + depth.h) < static_cast<std::uint32_t>(operand_.height) &&
           static_cast<std::uint32_t>(side.w + depth.w) < static_cast<std::uint32_t>(operand_.width);
  }

  CNN_DEVICE void gather(int i, const Place& side, Cursor depth, T* tile) {
#pragma unroll
    for (int e = 0; e < Tile::kChunk; ++e) {
      if (e > 0) step(operand_.depth, depth, 1);
      const bool valid = inside(side, depth.place) && depth_of(i) + e < left_;
      const T* from = data_ + side.offset + depth.place.offset;
      if constexpr (kHeld) {
        held_[i][e] = valid ? *from : T{};
      } else {
        cp_async<sizeof(T)>(tile + slot(i) + e, valid ? from : data_, valid);
      }
    }
  }

  const Operand& operand_;
  const T* data_;
  std::int32_t left_;  // depth indices from the next tile's first on
  Place side_[kSides];
  Cursor depth_;  // this thread's first chunk of the next tile
  Vector<T, Tile::kChunk> held_[kHeld ? kOwned : 1];
};

}  // namespace cnnkernels::conv2d
