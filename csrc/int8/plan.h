// How an INT8 product is going to be run: what selection decides, launchers obey and tests may dictate. Pure
// functions on the host. Integer sums are exact, so that a plan never changes a bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

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

inline std::string describe(const Plan& plan) {
  const std::string splits = ", splits " + std::to_string(plan.splits);
  if (plan.wgmma) {
    const Sm90Tile& tile = kSm90Tiles[plan.tile];
    return "wgmma " + std::to_string(tile.rows) + "x" + std::to_string(tile.columns) +
           (tile.ping_pong ? " ping-pong" : "") + (tile.cluster > 1 ? " cluster" : "") + splits;
  }
  const Tile& tile = kTiles[plan.tile];
  return std::string(plan.vectors ? "vectors " : "words ") + std::to_string(tile.rows) + "x" +
         std::to_string(tile.columns) + splits;
}

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
  if (plan.splits < 1 || plan.splits > std::max<std::int64_t>(size.stages_of(plan), 1))
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

// What the epilogue of a tile takes an SM: some 16 instructions an output.
template <class T>
double seconds_to_finish(const T& tile, const Gpu& gpu) {
  constexpr int kInstructions = 16, kInstructionsAClock = 128;  // of a thread; of all threads
  return static_cast<double>(tile.rows) * tile.columns * kInstructions / kInstructionsAClock / gpu.clock;
}

// The second kernel of a split reduction reads what the parts wrote.
inline double seconds_of_parts(const Plan& plan, const Extents& size, const Gpu& gpu) {
  const std::size_t bytes = workspace_bytes(plan, size.rows, size.columns * size.groups);
  return bytes == 0 ? 0 : kLaunch + 2.0 * static_cast<double>(bytes) / gpu.l2;
}

// Seconds a plan should take: a model that ranks plans. An SM's blocks share its arithmetic and its part of
// L2; a stage takes no less than a copy's latency over the stages under way. Nothing in it was fitted to a
// measurement.
inline double seconds_of_mma(const Plan& plan, const Extents& size, const Gpu& gpu) {
  const Tile& tile = kTiles[plan.tile];
  const double sms = gpu.processors;
  const double rate = 2 * gpu.tensor16 * gpu.mma_share / sms;  // INT8 is twice as fast as 16 bits
  const double multiply = 2.0 * tile.rows * tile.columns * kStageBytes / rate;
  const double copy = (tile.rows + tile.columns) * kStageBytes / (gpu.l2 / sms) * (plan.vectors ? 1 : 2);
  const std::int64_t stages = ceil_div(size.stages, plan.splits);
  const std::int64_t busiest = ceil_div(blocks_of(size, tile) * plan.splits, gpu.processors);
  const double finish = seconds_to_finish(tile, gpu);
  double all = kLaunch;
  const auto turns = [&](std::int64_t blocks, std::int64_t count) {
    const double stage = std::max(blocks * std::max(multiply, copy), kLatency / (kStages - 1));
    if (blocks > 0) all += count * (stages * stage + kLatency + blocks * finish);
  };
  turns(tile.blocks, busiest / tile.blocks);
  turns(busiest % tile.blocks, 1);
  return all + seconds_of_parts(plan, size, gpu);
}

// The same for one block an SM that takes tile after tile: the pipeline fills once, and sums are finished
// while nothing is multiplied, but for the last ones if tiles alternate. wgmma reads 64 rows and its columns
// of shared memory, 128 bytes a clock.
inline double seconds_of_wgmma(const Plan& plan, const Extents& size, const Gpu& gpu) {
  const Sm90Tile& tile = kSm90Tiles[plan.tile];
  const double sms = gpu.processors / tile.cluster * tile.cluster;
  const double rate = 2 * gpu.tensor16 * kReachedOfPeak / gpu.processors;
  const double multiply = 2.0 * tile.rows * tile.columns * gemm::sm90::kRowBytes / rate;
  const int across = tile.rows >= 128 ? 1 : 2;
  const double read = (tile.rows * across + tile.rows / 64 * tile.columns) / gpu.clock;
  const double copy = (tile.rows + static_cast<double>(tile.columns) / tile.cluster) * gemm::sm90::kRowBytes /
                      (gpu.l2 / gpu.processors);
  const int ring = std::min(8, 192 * 1024 / ((tile.rows + tile.columns) * gemm::sm90::kRowBytes));
  const double stage = std::max({multiply, read, copy, kLatency / (ring - 1)});
  const std::int64_t stages = ceil_div(size.tma_stages, plan.splits);
  const auto turns =
      static_cast<double>(ceil_div(tiles_of(size, tile) * plan.splits, static_cast<std::int64_t>(sms)));
  const double finish = seconds_to_finish(tile, gpu);
  const double multiplying = turns * stages * stage, finishing = turns * finish;
  const double both = tile.ping_pong ? std::max(multiplying + finish, finishing) : multiplying + finishing;
  return kLaunch + kLatency + both + seconds_of_parts(plan, size, gpu);
}

inline double seconds(const Plan& plan, const Extents& size, const Gpu& gpu) {
  return plan.wgmma ? seconds_of_wgmma(plan, size, gpu) : seconds_of_mma(plan, size, gpu);
}

// The cheapest plan.
inline Plan choose(const Extents& size, bool vectors, const Gpu& gpu) {
  constexpr int kMostSplits = 64, kShortestPart = 4;  // in stages
  Plan best;
  double least = -1;
  const auto consider = [&](Plan plan) {
    for (plan.splits = 1; plan.splits <= kMostSplits; plan.splits *= 2) {
      if (plan.splits > 1 && size.stages_of(plan) < plan.splits * kShortestPart) break;
      if (why_not(plan, size, vectors) != nullptr) continue;
      const double cost = seconds(plan, size, gpu);
      if (least < 0 || cost < least) {
        least = cost;
        best = plan;
      }
    }
  };
  for (int tile = 0; tile < kTileCount; ++tile) consider({vectors, tile});
  if (why_not_wgmma(gpu) == nullptr)
    for (int tile = 0; tile < kSm90TileCount; ++tile) consider({false, tile, 1, true});
  if (least < 0) throw std::invalid_argument("an INT8 product of more than 2^31 tiles of output");
  return best;
}

}  // namespace cnnkernels::int8
