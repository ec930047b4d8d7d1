// The shape of a block of the kernels for Hopper, and the ring of stages in its shared memory.
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

#include "../../ptx/mbarrier.cuh"
#include "../../ptx/mma.cuh"
#include "../../ptx/sync.cuh"
#include "../../ptx/wgmma.cuh"
#include "tile_schedule.h"
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
// multiplies. An operator adds Arguments, a TileSchedule and more, and kInParts: is its reduction summed in
// parts?
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
