// How an INT8 product is going to be run: what selection decides, launchers obey and tests may dictate. Pure
// functions on the host. Integer sums are exact, so that a plan never changes a bit.
#pragma once

#include <cstdint>

#include "../common/geometry.h"
#include "../gemm/sm90/limits.h"
#include "../common/gpu.h"

namespace cnnkernels::int8 {

// How an operand reaches shared memory. vectors: 16-byte asynchronous copies of aligned bytes along the
// reduction. The others pass through registers, 4 bytes at a time: along the reduction at any address, along
// the side and transposed on their way, or single bytes where nothing is contiguous.
enum class Access : int { vectors, along_depth, along_side, bytes };

// Rows and columns of the output one block makes, and the blocks an SM holds.
struct Tile {
  int rows, columns, blocks;
  int warp_rows, warp_columns;
};
inline constexpr Tile kTiles[] = {{128, 128, 2, 64, 64}, {64, 64, 4, 32, 32}, {128, 32, 4, 32, 32}};
inline constexpr int kTileCount = 3;
inline constexpr int kWordsTile = 1;  // the one that exists where operands pass through registers

// Of the kernel for Hopper (gemm/sm90/kernel.cuh): two tiles at a time, one multiplied while the other is
// stored; blocks of a cluster, which share the columns' operand; also where several taps share a stage?
struct Sm90Tile {
  int rows, columns;
  bool ping_pong = false;
  int cluster = 1;
  bool short_runs = false;
};
inline constexpr Sm90Tile kSm90Tiles[] = {
    {128, 256}, {128, 256, false, 2}, {128, 128, true, 1, true}, {128, 64, false, 1, true}, {64, 128}};
inline constexpr int kSm90TileCount = 5;

inline constexpr int kThreads = 128;
inline constexpr int kStages = 4;       // of the reduction held in shared memory at a time
inline constexpr int kStageBytes = 64;  // of each row and column in a stage
inline constexpr int kVectorBytes = 16, kWordBytes = 4;
inline constexpr std::int64_t kWorkspaceLimit = std::int64_t(64) << 20;

// Does an aligned word that holds a tensor's first byte, or its last, hold bytes that are not the tensor's?
inline bool words_reach_out(const void* data, std::int64_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  return begin % kWordBytes != 0 || (begin + static_cast<std::uintptr_t>(bytes)) % kWordBytes != 0;
}

struct Plan {
  bool vectors = false;  // both operands come as vectors
  int tile = kWordsTile;
  int splits = 1;      // parts of the reduction summed by different blocks
  bool wgmma = false;  // TMA and wgmma, on Hopper alone; the tile is of kSm90Tiles, `vectors` says nothing
  int blocks = 0;      // of wgmma, which take tiles in turn; 0: one a processor

  bool operator==(const Plan&) const = default;
};

// The size of a product: rows and columns of each group, stages of the reduction. Of wgmma: why TMA cannot
// bring the operands (null: it can), its stages, and the bytes of a run in them (sm90/limits.h).
struct Extents {
  std::int64_t rows, columns, groups, stages;
  const char* not_by_tma = "no tensor map describes its operands";
  std::int64_t tma_stages = 0;
  int span = gemm::sm90::kRowBytes;

  std::int64_t stages_of(const Plan& plan) const { return plan.wgmma ? tma_stages : stages; }
};

inline std::int64_t blocks_of(const Extents& size, const Tile& tile) {
  return ceil_div(size.rows, tile.rows) * ceil_div(size.columns, tile.columns) * size.groups;
}
// A cluster's row tiles come together, also where the last ones lie outside.
inline std::int64_t tiles_of(const Extents& size, const Sm90Tile& tile) {
  return ceil_div(size.rows, std::int64_t(tile.rows) * tile.cluster) * tile.cluster *
         ceil_div(size.columns, tile.columns) * size.groups;
}

inline std::size_t workspace_bytes(const Plan& plan, std::int64_t rows, std::int64_t columns) {
  return plan.splits == 1 ? 0 : static_cast<std::size_t>(plan.splits * rows * columns) * sizeof(std::int32_t);
}

// Why a plan cannot serve; null where it can. `vectors`: both operands can come so.
inline const char* why_not(const Plan& plan, const Extents& size, bool vectors) {
  if (plan.tile < 0 || plan.tile >= (plan.wgmma ? kSm90TileCount : kTileCount))
    return "there is no such tile";
  if (plan.wgmma) {
    if (size.not_by_tma != nullptr) return size.not_by_tma;
    if (size.span != gemm::sm90::kRowBytes && !kSm90Tiles[plan.tile].short_runs)
      return "its stages hold 128 bytes of one tap, and with so few channels several taps share one";
  } else {
    if (plan.vectors && !vectors)
      return "an operand is not contiguous along the reduction and aligned to 16 bytes";
    if (!plan.vectors && plan.tile != kWordsTile) return "that tile takes operands as vectors only";
  }
  if (plan.splits < 1 || plan.splits > larger<std::int64_t>(size.stages_of(plan), 1))
    return "a split has no stage of the reduction";
  if (plan.splits > 1 && workspace_bytes(plan, size.rows, size.columns * size.groups) > kWorkspaceLimit)
    return "partial sums would take more than 64 MB";
  const std::int64_t tiles =
      plan.wgmma ? tiles_of(size, kSm90Tiles[plan.tile]) : blocks_of(size, kTiles[plan.tile]);
  if (tiles * plan.splits >= std::int64_t(1) << 31) return "more than 2^31 tiles of output";
  return nullptr;
}

// Why a plan that came from outside cannot run on a GPU, whatever the problem.
inline const char* why_not(const Plan& plan, const Gpu& gpu) {
  return plan.wgmma ? cannot_run_wgmma(gpu) : nullptr;
}

inline constexpr double kLatency = 0.7e-6, kLaunch = 3e-6;

// Seconds a plan should take (cost.cpp): a model that ranks plans.
double seconds(const Plan& plan, const Extents& size, const Gpu& gpu);

// The cheapest plan.
Plan choose(const Extents& size, bool vectors, const Gpu& gpu);

}  // namespace cnnkernels::int8
