// TMA: one thread has a box of a tensor copied between global memory and swizzled
// shared memory (tensor_map.h).
//
// Coordinates are innermost first. Each call is one copy: one thread makes it. The shared tile is aligned to
// 128 bytes, and to 8 spans where it is swizzled. A load counts its full bytes on an mbarrier, also where it
// lies outside the tensor and fills with zeros. Stores of a thread gather into groups by bulk_commit();
// before the shared memory is written again, or the thread ends, it calls bulk_wait_read; before it reads the
// stored data itself, bulk_wait. Data that threads wrote to shared memory need fence_proxy_async() by each of
// them and a barrier before the store.
//
// tma_multicast.cuh copies to several blocks of a cluster at once.
#pragma once

#include "mbarrier.cuh"
#include "tensor_map.h"

#if defined(CNN_INTERPRETER)
#include "interpreter/tma.h"
#endif

namespace cnnkernels {

#if !defined(CNN_INTERPRETER)
CNN_DEVICE std::uint64_t map_address(const TensorMap& map) {
  return reinterpret_cast<std::uint64_t>(&map.opaque);
}
#endif

// Fetches the map itself ahead of the first copy.
CNN_DEVICE void tma_prefetch(const TensorMap& map) {
#if !defined(CNN_INTERPRETER)
  asm volatile("prefetch.tensormap [%0];" ::"l"(map_address(map)) : "memory");
#else
  static_cast<void>(map);
#endif
}

// The box whose first element is at `corner`, which may lie outside the tensor:
//   tma_load(tile, map, full, {c, row})
template <int Rank>
CNN_DEVICE void tma_load(void* shared, const TensorMap& map, Mbarrier* full,
                         const int (&corner)[Rank] CNN_SITE) {
  static_assert(Rank >= 1 && Rank <= 5, "a tensor map has 1 to 5 dimensions");
#if defined(CNN_INTERPRETER)
  model::tma_load_tile(shared, map, full, 1u << interpreter::cluster_rank(), corner, Rank, site);
#else
  const std::uint32_t to = shared_address(shared), barrier = shared_address(full);
  const std::uint64_t from = map_address(map);
  if constexpr (Rank == 1) {
    asm volatile(
        "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3}], "
        "[%2];" ::"r"(to),
        "l"(from), "r"(barrier), "r"(corner[0])
        : "memory");
  } else if constexpr (Rank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
        "[%2];" ::"r"(to),
        "l"(from), "r"(barrier), "r"(corner[0]), "r"(corner[1])
        : "memory");
  } else if constexpr (Rank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
        "%5}], "
        "[%2];" ::"r"(to),
        "l"(from), "r"(barrier), "r"(corner[0]), "r"(corner[1]), "r"(corner[2])
        : "memory");
  } else if constexpr (Rank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
        "%6}], "
        "[%2];" ::"r"(to),
        "l"(from), "r"(barrier), "r"(corner[0]), "r"(corner[1]), "r"(corner[2]), "r"(corner[3])
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
        "l"(from), "r"(barrier), "r"(corner[0]), "r"(corner[1]), "r"(corner[2]), "r"(corner[3]),
        "r"(corner[4])
        : "memory");
  }
#endif
}

// A column of pixels that starts at the place `start` = {c, w, h, n} ({c, w, n}, {c, w, h, d, n}), each read
// at its place + tap, tap = {w, h} ({w}, {w, h, d}) >= 0:
//   tma_load(tile, map, full, {c, w, h, n}, {s * dilation_w, r * dilation_h})
template <int Rank>
CNN_DEVICE void tma_load(void* shared, const TensorMap& map, Mbarrier* full, const int (&start)[Rank],
                         const int (&tap)[Rank - 2] CNN_SITE) {
  static_assert(Rank >= 3 && Rank <= 5, "im2col works on 3 to 5 dimensions");
#if defined(CNN_INTERPRETER)
  model::tma_load_im2col(shared, map, full, 1u << interpreter::cluster_rank(), start, tap, Rank, site);
#else
  const std::uint32_t to = shared_address(shared), barrier = shared_address(full);
  const std::uint64_t from = map_address(map);
  if constexpr (Rank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
        "%4, %5}], "
        "[%2], {%6};" ::"r"(to),
        "l"(from), "r"(barrier), "r"(start[0]), "r"(start[1]), "r"(start[2]),
        "h"(static_cast<std::uint16_t>(tap[0]))
        : "memory");
  } else if constexpr (Rank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(to),
        "l"(from), "r"(barrier), "r"(start[0]), "r"(start[1]), "r"(start[2]), "r"(start[3]),
        "h"(static_cast<std::uint16_t>(tap[0])), "h"(static_cast<std::uint16_t>(tap[1]))
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4, %5, %6, %7}], [%2], {%8, %9, %10};" ::"r"(to),
        "l"(from), "r"(barrier), "r"(start[0]), "r"(start[1]), "r"(start[2]), "r"(start[3]), "r"(start[4]),
        "h"(static_cast<std::uint16_t>(tap[0])), "h"(static_cast<std::uint16_t>(tap[1])),
        "h"(static_cast<std::uint16_t>(tap[2]))
        : "memory");
  }
#endif
}

// Writes the part of the box that lies inside the tensor. Belongs to the calling thread's next bulk_commit().
template <int Rank>
CNN_DEVICE void tma_store(const TensorMap& map, const void* shared, const int (&corner)[Rank] CNN_SITE) {
  static_assert(Rank >= 1 && Rank <= 5, "a tensor map has 1 to 5 dimensions");
#if defined(CNN_INTERPRETER)
  model::tma_store_tile(map, shared, corner, Rank, site);
#else
  const std::uint32_t from = shared_address(shared);
  const std::uint64_t to = map_address(map);
  if constexpr (Rank == 1) {
    asm volatile("cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%0, {%2}], [%1];" ::"l"(to),
                 "r"(from), "r"(corner[0])
                 : "memory");
  } else if constexpr (Rank == 2) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(to),
                 "r"(from), "r"(corner[0]), "r"(corner[1])
                 : "memory");
  } else if constexpr (Rank == 3) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(to),
                 "r"(from), "r"(corner[0]), "r"(corner[1]), "r"(corner[2])
                 : "memory");
  } else if constexpr (Rank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(to),
        "r"(from), "r"(corner[0]), "r"(corner[1]), "r"(corner[2]), "r"(corner[3])
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(to),
        "r"(from), "r"(corner[0]), "r"(corner[1]), "r"(corner[2]), "r"(corner[3]), "r"(corner[4])
        : "memory");
  }
#endif
}

CNN_DEVICE void bulk_commit(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::bulk_commit(site);
#else
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}

// Returns when all but the N youngest groups have read their shared memory.
template <int N>
CNN_DEVICE void bulk_wait_read(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::bulk_wait(N, false, site);
#else
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
#endif
}

// Returns when all but the N youngest groups are complete.
template <int N>
CNN_DEVICE void bulk_wait(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::bulk_wait(N, true, site);
#else
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
#endif
}

}  // namespace cnnkernels
