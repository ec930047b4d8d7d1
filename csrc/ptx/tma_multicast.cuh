// TMA's loads to several blocks of a cluster at once: the box is read once, and put to the same place of each
// block's shared memory. Each block's own mbarrier, at the same place too, counts the full bytes; so each
// must expect those of all copies that reach it, whoever makes them. Whoever makes a copy must know that the
// place is free in every block it goes to.
#pragma once

#include "tma.cuh"

namespace cnnkernels {

// Blocks of the cluster, a bit for each rank.
struct ClusterMask {
  std::uint16_t blocks;
};

// As tma_load:
//   tma_load(tile, map, full, ClusterMask{0b11}, {c, row})
template <int Rank>
CNN_DEVICE void tma_load(void* shared, const TensorMap& map, Mbarrier* full, ClusterMask mask,
                         const int (&corner)[Rank] CNN_SITE) {
  static_assert(Rank >= 1 && Rank <= 5, "a tensor map has 1 to 5 dimensions");
#if defined(CNN_INTERPRETER)
  model::tma_load_tile(shared, map, full, mask.blocks, corner, Rank, site);
#else
  const std::uint32_t to = shared_address(shared), barrier = shared_address(full);
  const std::uint64_t from = map_address(map);
  const std::uint16_t blocks = mask.blocks;
  if constexpr (Rank == 1) {
    asm volatile(
        "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%4}], [%2], %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(corner[0])
        : "memory");
  } else if constexpr (Rank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(corner[0]), "r"(corner[1])
        : "memory");
  } else if constexpr (Rank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(corner[0]), "r"(corner[1]), "r"(corner[2])
        : "memory");
  } else if constexpr (Rank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%4, %5, %6, %7}], [%2], %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(corner[0]), "r"(corner[1]), "r"(corner[2]), "r"(corner[3])
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%4, %5, %6, %7, %8}], [%2], %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(corner[0]), "r"(corner[1]), "r"(corner[2]), "r"(corner[3]),
        "r"(corner[4])
        : "memory");
  }
#endif
}

//   tma_load(tile, map, full, ClusterMask{0b11}, {c, w, h, n}, {s * dilation_w, r * dilation_h})
template <int Rank>
CNN_DEVICE void tma_load(void* shared, const TensorMap& map, Mbarrier* full, ClusterMask mask,
                         const int (&start)[Rank], const int (&tap)[Rank - 2] CNN_SITE) {
  static_assert(Rank >= 3 && Rank <= 5, "im2col works on 3 to 5 dimensions");
#if defined(CNN_INTERPRETER)
  model::tma_load_im2col(shared, map, full, mask.blocks, start, tap, Rank, site);
#else
  const std::uint32_t to = shared_address(shared), barrier = shared_address(full);
  const std::uint64_t from = map_address(map);
  const std::uint16_t blocks = mask.blocks;
  if constexpr (Rank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], {%7}, %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(start[0]), "r"(start[1]), "r"(start[2]),
        "h"(static_cast<std::uint16_t>(tap[0]))
        : "memory");
  } else if constexpr (Rank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5, %6, %7}], [%2], {%8, %9}, %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(start[0]), "r"(start[1]), "r"(start[2]), "r"(start[3]),
        "h"(static_cast<std::uint16_t>(tap[0])), "h"(static_cast<std::uint16_t>(tap[1]))
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%4, %5, %6, %7, %8}], [%2], {%9, %10, %11}, %3;" ::"r"(to),
        "l"(from), "r"(barrier), "h"(blocks), "r"(start[0]), "r"(start[1]), "r"(start[2]), "r"(start[3]),
        "r"(start[4]), "h"(static_cast<std::uint16_t>(tap[0])), "h"(static_cast<std::uint16_t>(tap[1])),
        "h"(static_cast<std::uint16_t>(tap[2]))
        : "memory");
  }
#endif
}

}  // namespace cnnkernels
