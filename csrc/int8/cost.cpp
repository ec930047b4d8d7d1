// How long a plan of an INT8 product should take. Nothing in it was fitted to a measurement.
#include <stdexcept>

#include "../common/giving_way.h"
#include "../common/model.h"
#include "plan.h"

namespace cnnkernels::int8 {

namespace {

// Instructions that a block with mma issues in a stage, by tile, where operands come as vectors.
constexpr double kStageSlots[kTileCount] = {1016, 592, 652};
constexpr double kWavefrontBytes = 128;

// What the epilogue of a tile takes an SM: by tile 20 to 37 instructions of a thread for an output of int8,
// 10 to 27 of int32.
template <class T>
double seconds_to_finish(const T& tile, const Gpu& gpu) {
  constexpr int kInstructions = 25, kInstructionsAClock = 128;  // of a thread; of all threads
  return static_cast<double>(tile.rows) * tile.columns * kInstructions / kInstructionsAClock / gpu.clock;
}

// The second kernel of a split reduction reads what the parts wrote.
double seconds_of_parts(const Plan& plan, const Extents& size, const Gpu& gpu) {
  const std::size_t bytes = workspace_bytes(plan, size.rows, size.columns * size.groups);
  return bytes == 0 ? 0 : kLaunch + 2.0 * static_cast<double>(bytes) / gpu.l2;
}

// An SM's blocks share its arithmetic and its part of L2; a stage takes no less than a copy's latency over
// the stages under way.
double seconds_of_mma(const Plan& plan, const Extents& size, const Gpu& gpu) {
  const Tile& tile = kTiles[plan.tile];
  const double rate = 2 * gpu.tensor16 * gpu.mma_share / gpu.processors;  // INT8 is twice as fast as 16 bits
  const double multiply = 2.0 * tile.rows * tile.columns * kStageBytes / rate;
  const std::int64_t stages = ceil_div(size.stages, plan.splits);
  const std::int64_t blocks = blocks_of(size, tile) * plan.splits;
  const std::int64_t busiest = ceil_div(blocks, gpu.processors);
  const int read = kThreads / 32 * (tile.warp_rows + tile.warp_columns), written = tile.rows + tile.columns;
  const double shared = (read + written) * kStageBytes / kWavefrontBytes / gpu.clock;
  const double issue = kStageSlots[plan.tile] / kIssuedPerClock / gpu.clock;
  const double copy =
      written * kStageBytes / l2_of_sm(gpu, static_cast<double>(blocks)) * (plan.vectors ? 1 : 2);
  const double finish = seconds_to_finish(tile, gpu);
  double all = kLaunch;
  const auto turns = [&](std::int64_t blocks, std::int64_t count) {
    const double stage =
        std::max(blocks * std::max({multiply, shared, issue, copy}), kLatency / (kStages - 1));
    if (blocks > 0) all += count * (stages * stage + kLatency + blocks * finish);
  };
  turns(tile.blocks, busiest / tile.blocks);
  turns(busiest % tile.blocks, 1);
  return all + seconds_of_parts(plan, size, gpu);
}

// The same for one block an SM that takes tile after tile: the pipeline fills once, and sums are finished
// while nothing is multiplied, but for the last ones if tiles alternate. wgmma reads 64 rows and its columns
// of shared memory, and TMA has written both.
double seconds_of_wgmma(const Plan& plan, const Extents& size, const Gpu& gpu) {
  const Sm90Tile& tile = kSm90Tiles[plan.tile];
  const double sms = gpu.processors / tile.cluster * tile.cluster;
  const double rate = 2 * gpu.tensor16 * kReachedOfPeak / gpu.processors;
  const double multiply = 2.0 * tile.rows * tile.columns * gemm::sm90::kRowBytes / rate;
  const int across = tile.rows >= 128 ? 1 : 2;
  const double shared =
      (tile.rows * across + tile.rows / 64 * tile.columns + tile.rows + tile.columns) / gpu.clock;
  const auto tiles = static_cast<double>(tiles_of(size, tile) * plan.splits);
  const double copy = (tile.rows + static_cast<double>(tile.columns) / tile.cluster) * gemm::sm90::kRowBytes /
                      l2_of_sm(gpu, std::min(sms, tiles));
  const int ring = std::min(8, 192 * 1024 / ((tile.rows + tile.columns) * gemm::sm90::kRowBytes));
  const double stage = std::max({multiply, shared, copy, kLatency / (ring - 1)});
  const std::int64_t stages = ceil_div(size.tma_stages, plan.splits);
  const auto turns =
      static_cast<double>(ceil_div(tiles_of(size, tile) * plan.splits, static_cast<std::int64_t>(sms)));
  const double finish = seconds_to_finish(tile, gpu);
  const double multiplying = turns * stages * stage, finishing = turns * finish;
  const double both = tile.ping_pong ? std::max(multiplying + finish, finishing) : multiplying + finishing;
  return kLaunch + kLatency + both + seconds_of_parts(plan, size, gpu);
}

}  // namespace

double seconds(const Plan& plan, const Extents& size, const Gpu& gpu) {
  return plan.wgmma ? seconds_of_wgmma(plan, size, gpu) : seconds_of_mma(plan, size, gpu);
}

Plan choose(const Extents& size, bool vectors, const Gpu& gpu) {
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
  if (why_not_wgmma(gpu) == nullptr && !gave_way(Yielding::int8_wgmma, 0, DType::int8))
    for (int tile = 0; tile < kSm90TileCount; ++tile) consider({false, tile, 1, true});
  if (least < 0) throw std::invalid_argument("an INT8 product of more than 2^31 tiles of output");
  return best;
}

}  // namespace cnnkernels::int8
