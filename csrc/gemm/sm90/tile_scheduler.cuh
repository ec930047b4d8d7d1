// Which tile a block makes next, and where that lies: clusters take tiles in turn, one in every so many as
// there are.
#pragma once

#include "../../ptx/cluster.cuh"
#include "tile_schedule.h"

namespace cnnkernels::gemm::sm90 {

// The block's number in its cluster, and its cluster's among all.
template <class C>
CNN_DEVICE int rank_in_cluster() {
  if constexpr (C::kCluster > 1) return static_cast<int>(cluster_rank());
  return 0;
}
template <class C>
CNN_DEVICE int this_cluster() {
  return static_cast<int>(blockIdx.x) / C::kCluster;
}
template <class C>
CNN_DEVICE int all_clusters() {
  return static_cast<int>(gridDim.x) / C::kCluster;
}

// One tile: where it lies and how many stages its sum takes.
struct WorkTile {
  int phase, group, part, first_row, first_column, first_step, steps;
};

// Tiles, a cluster's as one, are numbered by phases, parts and groups; within one of those, by bands of kBand
// row tiles, column by column. All of a cluster take the same number of stages.
template <class C>
CNN_DEVICE WorkTile work_tile(const typename C::Arguments& a, int tile) {
  WorkTile work{};
  while (work.phase + 1 < a.phases && tile >= a.phase[work.phase + 1].first_tile) ++work.phase;
  const Phase& phase = a.phase[work.phase];
  std::uint32_t within, in_band, group;
  const std::uint32_t slice = phase.slice_tiles.divmod(tile - phase.first_tile, within);
  work.part = static_cast<int>(a.groups.divmod(slice, group));
  work.group = static_cast<int>(group);
  const int first = static_cast<int>(a.band_tiles.divmod(within, in_band)) * kBand;
  const auto height = static_cast<std::uint32_t>(min(kBand, phase.row_tiles - first));
  const std::uint32_t column = in_band / height;
  const int row = first + static_cast<int>(in_band - column * height);
  work.first_row = (row * C::kCluster + rank_in_cluster<C>()) * C::kRows;
  work.first_column = static_cast<int>(column) * C::kColumns;
  if constexpr (C::kInParts) {
    work.first_step = work.part * a.steps_per_part;
    work.steps = max(0, min(a.steps_per_part, a.steps - work.first_step));
  } else {
    work.steps = (a.chunks * phase.r.count * phase.s.count + C::kRuns - 1) / C::kRuns;
  }
  return work;
}

}  // namespace cnnkernels::gemm::sm90
