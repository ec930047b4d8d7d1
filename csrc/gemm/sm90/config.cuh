// The shape of a block of the kernels for Hopper, the ring of stages in its shared memory, and how it finds
// its tiles.
//
//   warps 0-3, 4-7   two consumers, warpgroups that multiply and store: each half of a tile's rows (of its
//                    columns where it has but 64 rows); or each every second tile, so that one multiplies
//                    while the other stores (ping-pong)
//   warp 8           the producer: one lane starts TMA's copies. Warps 9-11 only give their registers away.
//
// Blocks of a cluster make tiles below each other at the same pace: their columns' operand is the same, so
// each copies a share of it to all of them.
#pragma once

#include <type_traits>

#include "../../ptx/cluster.cuh"
#include "../../ptx/mbarrier.cuh"
#include "../../ptx/mma.cuh"
#include "../../ptx/sync.cuh"
#include "../../ptx/wgmma.cuh"
#include "tiles.h"
#include "../../common/shared_limits.h"

namespace cnnkernels::gemm::sm90 {

inline constexpr int kConsumers = 2, kWarpgroup = 128, kThreads = (kConsumers + 1) * kWarpgroup;
// A thread starts with 65536 / 384 registers, 168. The producer needs few of them, sums up to 128.
inline constexpr int kProducerRegisters = 56, kConsumerRegisters = 224;

inline constexpr int kBlockBytes = kBlock * kRowBytes;  // 64 rows of 128 bytes
inline constexpr int kStagingBlocks = 2;                // of each consumer
inline constexpr int kStagingBytes = kConsumers * kStagingBlocks * kBlockBytes;
// What a block may have, less the ring's barriers and what aligns the stages behind them.
inline constexpr int kSharedLimit = kSm90BlockBytes - 1024;

// What follows of an operator's tile (rows, columns, ping_pong, cluster) and operands. In: what wgmma
// multiplies. An operator adds Arguments, a Walk and more, and kInParts: is its reduction summed in parts?
template <class In_, auto kTile, Major kMajorA_, Major kMajorB_, int kSpan_>
struct Shape {
  using In = In_;
  using T = std::conditional_t<std::is_same_v<In, tf32>, float, In>;  // in memory

  static constexpr int kRows = kTile.rows, kColumns = kTile.columns;
  static constexpr bool kPingPong = kTile.ping_pong;
  static constexpr int kCluster = kTile.cluster;
  static constexpr int kSharers = kPingPong ? 1 : kConsumers;  // of a tile
  static constexpr int kDown = kRows >= 2 * kBlock ? kSharers : 1, kAcross = kSharers / kDown;
  // A consumer's sums: kM times 64 rows, by kN columns.
  static constexpr int kM = kRows / kDown / kBlock, kN = kColumns / kAcross;
  using Sums = typename Mma<In>::Accumulator[kM][kN / 2];

  // Does memory run along the reduction or across it?
  static constexpr Major kMajorA = kMajorA_, kMajorB = kMajorB_;
  // A stage of the reduction is kRuns runs of kSpan bytes, or of as many indices where memory runs across.
  static constexpr int kSpan = kSpan_, kRuns = kRowBytes / kSpan;
  static constexpr Swizzle kRunSwizzle = swizzle_of(kSpan);
  static constexpr int kRun = kSpan / static_cast<int>(sizeof(T));

  static constexpr int kBytesA = kRows * kRowBytes, kStageBytes = kBytesA + kColumns * kRowBytes;
  static constexpr int kMostStages = 8;
  static constexpr int kFitting = (kSharedLimit - kStagingBytes) / kStageBytes;
  static constexpr int kStages = kFitting < kMostStages ? kFitting : kMostStages;
  static constexpr int kSharedBytes = kStages * kStageBytes + kStagingBytes;
  static_assert(kStages >= 4);
  static_assert(kCluster == 1 || !kPingPong);
};

template <int kStages>
struct Ring {
  Mbarrier full[kStages], empty[kStages];
};
static_assert(block_bytes(kSharedLimit, sizeof(Ring<8>)) <= kSm90BlockBytes);

// A stage, and the parity of the phase in which it is filled.
template <int kStages>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  CNN_DEVICE void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  CNN_DEVICE void skip(int stages) {
    const int to = stage + stages;
    stage = to % kStages;
    parity ^= static_cast<unsigned>(to / kStages) & 1;
  }
};

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
struct Job {
  int phase, group, part, first_row, first_column, first_step, steps;
};

// Tiles, a cluster's as one, are numbered by phases, parts and groups; within one of those, by bands of kBand
// row tiles, column by column. All of a cluster take the same number of stages.
template <class C>
CNN_DEVICE Job job_of(const typename C::Arguments& a, int tile) {
  Job job{};
  while (job.phase + 1 < a.phases && tile >= a.phase[job.phase + 1].first_tile) ++job.phase;
  const Phase& phase = a.phase[job.phase];
  std::uint32_t within, in_band, group;
  const std::uint32_t slice = phase.slice_tiles.divmod(tile - phase.first_tile, within);
  job.part = static_cast<int>(a.groups.divmod(slice, group));
  job.group = static_cast<int>(group);
  const int first = static_cast<int>(a.band_tiles.divmod(within, in_band)) * kBand;
  const auto height = static_cast<std::uint32_t>(min(kBand, phase.row_tiles - first));
  const std::uint32_t column = in_band / height;
  const int row = first + static_cast<int>(in_band - column * height);
  job.first_row = (row * C::kCluster + rank_in_cluster<C>()) * C::kRows;
  job.first_column = static_cast<int>(column) * C::kColumns;
  if constexpr (C::kInParts) {
    job.first_step = job.part * a.steps_per_part;
    job.steps = max(0, min(a.steps_per_part, a.steps - job.first_step));
  } else {
    job.steps = (a.chunks * phase.r.count * phase.s.count + C::kRuns - 1) / C::kRuns;
  }
  return job;
}

// A consumer's first row and column of a tile.
template <class C>
CNN_DEVICE int first_row_of(int consumer) {
  return C::kDown > 1 ? consumer * C::kM * kBlock : 0;
}
template <class C>
CNN_DEVICE int first_column_of(int consumer) {
  return C::kAcross > 1 ? consumer * C::kN : 0;
}

}  // namespace cnnkernels::gemm::sm90
