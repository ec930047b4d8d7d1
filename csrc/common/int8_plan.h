// How an INT8 product is going to be run: what selection decides, launchers obey and tests may dictate. Pure
// functions on the host. Integer sums are exact, so that a plan never changes a bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "geometry.h"
#include "machine.h"

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

inline constexpr int kThreads = 128;
inline constexpr int kStages = 4;       // of the reduction held in shared memory at a time
inline constexpr int kStageBytes = 64;  // of each row and column in a stage
inline constexpr int kVectorBytes = 16, kWordBytes = 4;
inline constexpr std::int64_t kWorkspaceLimit = std::int64_t(64) << 20;

struct Plan {
  bool vectors = false;  // both operands come as vectors
  int tile = kWordsTile;
  int splits = 1;  // parts of the reduction summed by different blocks

  bool operator==(const Plan&) const = default;
};

inline std::string describe(const Plan& plan) {
  const Tile& tile = kTiles[plan.tile];
  return std::string(plan.vectors ? "vectors " : "words ") + std::to_string(tile.rows) + "x" +
         std::to_string(tile.columns) + ", splits " + std::to_string(plan.splits);
}

// The size of a product: rows and columns of each group, stages of the reduction.
struct Extents {
  std::int64_t rows, columns, groups, stages;
};

inline std::int64_t blocks_of(const Extents& size, const Tile& tile) {
  return ceil_div(size.rows, tile.rows) * ceil_div(size.columns, tile.columns) * size.groups;
}

inline std::size_t workspace_bytes(const Plan& plan, std::int64_t rows, std::int64_t columns) {
  return plan.splits == 1 ? 0 : static_cast<std::size_t>(plan.splits * rows * columns) * sizeof(std::int32_t);
}

// Why a plan cannot serve; null where it can. `vectors`: both operands can come so.
inline const char* why_not(const Plan& plan, const Extents& size, bool vectors) {
  if (plan.tile < 0 || plan.tile >= kTileCount) return "there is no such tile";
  if (plan.vectors && !vectors)
    return "an operand is not contiguous along the reduction and aligned to 16 bytes";
  if (!plan.vectors && plan.tile != kWordsTile) return "that tile takes operands as vectors only";
  if (plan.splits < 1 || plan.splits > std::max<std::int64_t>(size.stages, 1))
    return "a split has no stage of the reduction";
  if (plan.splits > 1 && workspace_bytes(plan, size.rows, size.columns * size.groups) > kWorkspaceLimit)
    return "partial sums would take more than 64 MB";
  if (blocks_of(size, kTiles[plan.tile]) * plan.splits >= std::int64_t(1) << 31)
    return "more than 2^31 tiles of output";
  return nullptr;
}

// Seconds a plan should take: a model that ranks plans. An SM's blocks share its arithmetic and its part of
// L2; a stage takes no less than a copy's latency over the stages under way. Nothing in it was fitted to a
// measurement.
inline double seconds(const Plan& plan, const Extents& size, const Machine& machine) {
  constexpr double kLatency = 0.7e-6, kLaunch = 3e-6;
  const Tile& tile = kTiles[plan.tile];
  const double sms = machine.processors;
  const double rate = 2 * machine.tensor16 * machine.mma_share / sms;  // INT8 is twice as fast as 16 bits
  const double multiply = 2.0 * tile.rows * tile.columns * kStageBytes / rate;
  const double copy = (tile.rows + tile.columns) * kStageBytes / (machine.l2 / sms) * (plan.vectors ? 1 : 2);
  const std::int64_t stages = ceil_div(size.stages, plan.splits);
  const std::int64_t busiest = ceil_div(blocks_of(size, tile) * plan.splits, machine.processors);
  double all = kLaunch;
  const auto turns = [&](std::int64_t blocks, std::int64_t count) {
    if (blocks > 0)
      all +=
          count * (stages * std::max(blocks * std::max(multiply, copy), kLatency / (kStages - 1)) + kLatency);
  };
  turns(tile.blocks, busiest / tile.blocks);
  turns(busiest % tile.blocks, 1);
  if (plan.splits > 1) {  // a second kernel reads what they wrote
    const double parts =
        2.0 * static_cast<double>(workspace_bytes(plan, size.rows, size.columns * size.groups));
    all += kLaunch + parts / machine.l2;
  }
  return all;
}

// The cheapest plan.
inline Plan choose(const Extents& size, bool vectors, const Machine& machine) {
  constexpr int kMostSplits = 64, kShortestPart = 4;  // in stages
  Plan best;
  double least = -1;
  for (int tile = 0; tile < kTileCount; ++tile) {
    for (int splits = 1; splits <= kMostSplits; splits *= 2) {
      if (splits > 1 && size.stages < splits * kShortestPart) break;
      const Plan plan{vectors, tile, splits};
      if (why_not(plan, size, vectors) != nullptr) continue;
      const double cost = seconds(plan, size, machine);
      if (least < 0 || cost < least) {
        least = cost;
        best = plan;
      }
    }
  }
  if (least < 0) throw std::invalid_argument("an INT8 product of more than 2^31 tiles of output");
  return best;
}

}  // namespace cnnkernels::int8
