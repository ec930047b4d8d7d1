// Brings an operand's tiles from global to shared memory, one stage of the reduction after another.
#pragma once

#include "../../common/vector.h"
#include "../../ptx/cp_async.cuh"
#include "../gemm.h"
#include "../../gemm/shared_tile.cuh"

namespace cnnkernels::conv {

// A thread fills the same chunks of every tile. It keeps their places on the axis that stays (the side), one
// for all where they coincide; the places on the axis that moves come from the depth table.
template <class T, int Extent, Loader kLoader, int Threads>
class OperandLoader {
 public:
  using Tile = gemm::SharedTile<T, Extent, kLoader != Loader::along_side>;

  CNN_DEVICE OperandLoader(const Operand& operand, std::int64_t group, std::int64_t first_side)
      : operand_(operand), data_(static_cast<const T*>(operand.data) + group * operand.group_stride) {
    const Cursor tile = seek(operand.side, first_side);
#pragma unroll
    for (int i = 0; i < kSides; ++i) {
      Cursor cursor = tile;
      step(operand.side, cursor, side_of(i));
      side_[i] = data_ + operand.origin.offset + cursor.place.offset;
      h_[i] = first_side + side_of(i) < operand.side.extent ? operand.origin.h + cursor.place.h : kOutside;
      w_[i] = operand.origin.w + cursor.place.w;
    }
  }

  // Starts a tile on its way, given the places of its depths. What could not be sent off at once is held in
  // registers until finish(). `border`: called, if it exists, with a row and a column for how many elements
  // further they lie.
  template <class Border>
  CNN_DEVICE void start(T* tile, const Place* depths, const Border& border) {
    if constexpr (kLoader == Loader::elements) {
#pragma unroll
      for (int i = 0; i < kOwned; ++i) gather(i, tile, depths);
    } else {
      Place place[kDepths];
#pragma unroll
      for (int i = 0; i < kDepths; ++i) place[i] = depths[depth_of(i)];
      const T* from[kOwned];
      bool valid[kOwned];
#pragma unroll
      for (int i = 0; i < kOwned; ++i) {
        const Place& depth = place[kDepths == 1 ? 0 : i];
        const int side = kSides == 1 ? 0 : i;
        valid[i] = inside(side, depth);
        from[i] = valid[i] ? side_[side] + depth.offset : data_;
      }
      if (border.exists()) {  // once for all, so that without one this costs no more than the question
#pragma unroll
        for (int i = 0; i < kOwned; ++i) {
          const Place& depth = place[kDepths == 1 ? 0 : i];
          const int side = kSides == 1 ? 0 : i;
          if (valid[i]) from[i] += border(h_[side] + depth.h, w_[side] + depth.w);
        }
      }
#pragma unroll
      for (int i = 0; i < kOwned; ++i) cp_async<gemm::kChunkBytes>(tile + slot(i), from[i], valid[i]);
    }
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
  static constexpr int kDepths = kLoader == Loader::along_depth ? 1 : kOwned;
  static constexpr bool kHeld =
      kLoader == Loader::elements && sizeof(T) == 2;  // cp.async moves 4 bytes or more
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
  CNN_DEVICE static int side_of(int i) { return Tile::kDepthMajor ? row_of(i) : column_of(i) * Tile::kChunk; }
  CNN_DEVICE static int depth_of(int i) {
    return Tile::kDepthMajor ? column_of(i) * Tile::kChunk : row_of(i);
  }

  // The element of the tile at which it begins.
  CNN_DEVICE static int slot(int i) {
    if constexpr (kLoader == Loader::elements) {
      return Tile::chunk(row_of(i), column_of(i));
    } else {  // the next one lies whole periods of the permutation further on
      static_assert(Threads / Tile::kRowChunks % Tile::kRowPeriod == 0);
      return Tile::chunk(row_of(0), column_of(0)) + i * Threads * Tile::kChunk;
    }
  }

  CNN_DEVICE void gather(int i, T* tile, const Place* depths) {
#pragma unroll
    for (int e = 0; e < Tile::kChunk; ++e) {
      const Place depth = depths[depth_of(i) + e];
      const bool valid = inside(0, depth);
      const T* from = side_[0] + depth.offset;
      if constexpr (kHeld) {
        held_[i][e] = valid ? *from : T{};
      } else {
        cp_async<sizeof(T)>(tile + slot(i) + e, valid ? from : data_, valid);
      }
    }
  }

  CNN_DEVICE bool inside(int side, const Place& depth) const {
    return static_cast<std::uint32_t>(h_[side] + depth.h) < static_cast<std::uint32_t>(operand_.height) &&
           static_cast<std::uint32_t>(w_[side] + depth.w) < static_cast<std::uint32_t>(operand_.width);
  }

  const Operand& operand_;
  const T* data_;
  const T* side_[kSides];
  std::int32_t h_[kSides], w_[kSides];
  Vector<T, Tile::kChunk> held_[kHeld ? kOwned : 1];
};

}  // namespace cnnkernels::conv
