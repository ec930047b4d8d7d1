// Copies boxes between global and shared memory by 16-byte accesses (region.h).
#pragma once

#include "../common/vector.h"
#include "../ptx/cp_async.cuh"
#include "read.cuh"
#include "region.h"

namespace cnnkernels::depthwise_conv {

// A box of this block: its first element in the tensor, its extents.
struct Box {
  std::int64_t begin;
  Index units, rows, columns;
};

// Where a box starts in shared memory: as far behind a multiple of 16 bytes as in global memory.
template <class T>
CNN_DEVICE Index head_of(const T* tensor, std::int64_t element) {
  constexpr std::uint32_t V = kVectorBytes / sizeof(T);
  const auto lead = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(tensor) / sizeof(T));
  return static_cast<Index>((lead + static_cast<std::uint32_t>(element)) % V);
}

// Calls body(global, shared, from, to) for every aligned vector that a piece touches: the indices of its
// first element, and which part of it belongs to the piece.
template <class T, class Body>
CNN_DEVICE void for_each_vector(const Region& r, const Box& box, const T* tensor, Body&& body) {
  constexpr Index V = kVectorBytes / sizeof(T);
  const Index rows = r.pieces == Pieces::row || r.pieces == Pieces::pixel ? box.rows : 1;
  const Index inners = r.inner == 0 ? 1 : r.pieces == Pieces::pixel ? box.columns : box.units;
  const Index count = r.pieces == Pieces::planes ? box.units * r.pitch_unit
                      : r.pieces == Pieces::rows ? box.rows * r.pitch_a
                      : r.pieces == Pieces::row  ? box.columns * r.pitch_b
                                                 : box.units;
  const Index head = head_of(tensor, box.begin), all = rows * extent(r.inners) * extent(r.vectors);
  for (Index i = static_cast<Index>(threadIdx.x); i < all; i += static_cast<Index>(blockDim.x)) {
    Index row = i;
    const Index vector = split(row, r.vectors), inner = split(row, r.inners);
    const std::int64_t begin = box.begin + row * r.row + inner * r.inner;
    const Index first = vector * V - head_of(tensor, begin);  // from the piece's first element
    if (inner >= inners || first >= count) continue;
    body(begin + first, head + row * r.pitch_a + inner * r.pitch_inner + first, max(-first, Index(0)),
         min(V, count - first));
  }
}

// Starts copies; what a vector holds beside the piece comes along where the tensor has it.
template <class T>
CNN_DEVICE void copy_in(const Region& r, const Box& box, T* shared, const T* __restrict__ tensor) {
  constexpr Index V = kVectorBytes / sizeof(T);
  for_each_vector(r, box, tensor, [&](std::int64_t global, Index at, Index from, Index to) {
    if (global >= 0 && global + V <= r.total) {
      cp_async<kVectorBytes>(shared + at, tensor + global, true);
    } else {
#pragma unroll 1
      for (Index j = from; j < to; ++j) shared[at + j] = tensor[global + j];
    }
  });
}

template <class T>
CNN_DEVICE void copy_out(const Region& r, const Box& box, T* tensor, const T* shared) {
  constexpr Index V = kVectorBytes / sizeof(T);
  for_each_vector(r, box, tensor, [&](std::int64_t global, Index at, Index from, Index to) {
    if (from == 0 && to == V) {
      copy_vector(tensor + global, shared + at);
    } else {
#pragma unroll 1
      for (Index j = from; j < to; ++j) tensor[global + j] = shared[at + j];
    }
  });
}

}  // namespace cnnkernels::depthwise_conv
