// Which engine, tile, loaders and split serve a problem: a pure function of it, on the host, the same on
// every GPU. Kernels made for one architecture (TMA, wgmma) join here as further candidates.
//
// What must not depend on the batch is each output's order of summation. In forward and backward_input it is
// depth ascending, in the steps of the engine, whatever the tile and the loaders; so those may be chosen
// freely.
#pragma once

#include <algorithm>

#include "../common/types.h"
#include "plan.h"
#include "problem.h"

namespace cnnkernels::conv2d {

inline constexpr std::int64_t kWorkspaceLimit = std::int64_t(256) << 20;
inline constexpr int kTileRowBytes = 64;  // of the reduction that one stage holds for each row and column
inline constexpr int kVectorBytes = 16;

struct Element {
  DType dtype;
  bool tf32;
  int bytes() const { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
  int accumulator_bytes() const { return dtype == DType::float64 ? 8 : 4; }
  int depth_per_stage() const { return kTileRowBytes / bytes(); }
};

inline Engine engine_for(const Element& element) {
  const bool exact = element.dtype == DType::float64 || (element.dtype == DType::float32 && !element.tf32);
  return exact ? Engine::fma : Engine::mma;
}

// fp64's 128 x 128 tile would not fit the register file.
inline bool tile_exists(int tile, const Element& element) {
  return !(tile == 0 && element.dtype == DType::float64);
}

inline bool can_load(Loader loader, const Operand& operand, const Element& element) {
  if (loader == Loader::elements) return true;
  const int chunk = kVectorBytes / element.bytes();
  const Axis& along = loader == Loader::along_depth ? operand.depth : operand.side;
  const Axis& across = loader == Loader::along_depth ? operand.side : operand.depth;
  return along.contiguous(chunk) && across.keeps_alignment(chunk) && operand.origin.offset % chunk == 0 &&
         operand.group_stride % chunk == 0 &&
         reinterpret_cast<std::uintptr_t>(operand.data) % kVectorBytes == 0;
}

inline Loader loader_for(const Operand& operand, const Element& element) {
  for (const Loader loader : {Loader::along_depth, Loader::along_side})
    if (can_load(loader, operand, element)) return loader;
  return Loader::elements;
}

// Kernels that would gather B alone are not compiled: its memory is the smaller, so A is gathered beside it.
inline constexpr bool loaders_exist(Loader a, Loader b) {
  return b != Loader::elements || a == Loader::elements;
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline std::int64_t blocks_of(const Gemm& gemm, const Tile& tile) {
  return ceil_div(gemm.rows(), tile.rows) * ceil_div(gemm.columns(), tile.columns) * gemm.groups;
}

// Time of the busiest SM: its blocks times a tile's multiply-adds over the share of the peak that tile size
// reaches. Smaller tiles read shared memory more often for each multiply-add.
inline int tile_for(const Gemm& gemm, const Element& element) {
  constexpr double kShareOfPeak[kTileCount] = {1.0, 0.7, 0.6};
  constexpr std::int64_t kProcessors = 128;  // about one GPU of the A100's or H200's size
  int best = 1;
  double least = 1e300;
  for (int i = 0; i < kTileCount; ++i) {
    if (!tile_exists(i, element)) continue;
    const Tile& tile = kTiles[i];
    const double turns = static_cast<double>(ceil_div(blocks_of(gemm, tile), kProcessors));
    const double cost = turns * tile.rows * tile.columns / kShareOfPeak[i];
    if (cost < least) {
      least = cost;
      best = i;
    }
  }
  return best;
}

// Parts of backward_weight's long reduction: enough blocks to fill a GPU twice, parts long enough to be worth
// a block, partial sums within the workspace limit, positions in a part below 2^30.
inline int splits_for(const Gemm& gemm, const Element& element, const Tile& tile) {
  constexpr std::int64_t kWantedBlocks = 256, kShortestPart = 16;  // in stages
  const std::int64_t outputs = gemm.rows() * gemm.columns() * gemm.groups;
  const std::int64_t stages = ceil_div(gemm.depth(), element.depth_per_stage());
  const std::int64_t wanted = ceil_div(kWantedBlocks, blocks_of(gemm, tile));
  const std::int64_t affordable = kWorkspaceLimit / (outputs * element.accumulator_bytes());
  const std::int64_t splits = std::min({wanted, ceil_div(stages, kShortestPart), affordable});
  const std::int64_t needed = ceil_div(gemm.depth(), std::int64_t(1) << 30);
  return static_cast<int>(std::max({splits, needed, std::int64_t(1)}));
}

inline Plan select(Direction direction, const Gemm& gemm, const Element& element) {
  Plan plan;
  plan.engine = engine_for(element);
  plan.tile = tile_for(gemm, element);
  plan.a = loader_for(gemm.a, element);
  plan.b = loader_for(gemm.b, element);
  if (!loaders_exist(plan.a, plan.b)) plan.a = Loader::elements;
  if (direction == Direction::backward_weight) plan.splits = splits_for(gemm, element, kTiles[plan.tile]);
  return plan;
}

// A plan that came from outside is refused, with the reason, where it cannot serve.
inline void validate(Direction direction, const Plan& plan, const Gemm& gemm, const Element& element) {
  const auto refuse = [&](const char* why) {
    throw std::invalid_argument("conv2d: the plan '" + describe(plan) +
                                "' cannot serve this problem: " + why);
  };
  if (plan.tile < 0 || plan.tile >= kTileCount) throw std::invalid_argument("conv2d: no such tile");
  if (plan.engine != engine_for(element)) refuse("the element type runs on the other engine");
  if (!tile_exists(plan.tile, element)) refuse("float64 has no 128x128 tile");
  if (!can_load(plan.a, gemm.a, element)) refuse("A is not contiguous and aligned that way");
  if (!can_load(plan.b, gemm.b, element)) refuse("B is not contiguous and aligned that way");
  if (!loaders_exist(plan.a, plan.b)) refuse("B is gathered one element at a time only where A is too");
  if (plan.splits < 1) refuse("splits must be at least 1");
  if (plan.splits > 1 && direction != Direction::backward_weight)
    refuse("only backward_weight splits its reduction");
}

}  // namespace cnnkernels::conv2d
