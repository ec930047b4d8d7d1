// Which engine, tile, loaders and split serve a problem: pure functions on the host, each step of which can
// be looked at.
//
//   problem -> candidates -> feasible, or why not -> cost -> choice
//
// Kernels made for one architecture (TMA, wgmma) join here as further candidates, with a reason of their own
// for where they cannot serve. A plan that was measured to be best (cnnkernels/records/tuned.py) goes before
// the model's choice.
//
// What must not depend on the batch is each output's order of summation. In forward and backward_input it is
// depth ascending, in the steps of the engine, whatever the tile and the loaders; so those may be chosen
// freely. backward_weight's parts are a function of the problem alone, the same on every GPU.
#pragma once

#include <algorithm>
#include <stdexcept>

#include "cost.h"
#include "describe.h"

namespace cnnkernels::conv {

inline constexpr std::int64_t kWorkspaceLimit = std::int64_t(256) << 20;
inline constexpr int kVectorBytes = 16;

inline Engine engine_for(const Element& element) {
  const bool exact = element.dtype == DType::float64 || (element.dtype == DType::float32 && !element.tf32);
  return exact ? Engine::fma : Engine::mma;
}

// Why a loader cannot bring an operand; null where it can.
inline const char* why_not(Loader loader, const Operand& operand, const Element& element) {
  if (loader == Loader::elements) return nullptr;
  const int chunk = kVectorBytes / element.bytes();
  const bool depth = loader == Loader::along_depth;
  const Axis& along = depth ? operand.depth : operand.side;
  const Axis& across = depth ? operand.side : operand.depth;
  if (!along.contiguous(chunk))
    return depth ? "no 16 bytes run along the reduction" : "no 16 bytes run along the side";
  if (!across.keeps_alignment(chunk) || operand.origin.offset % chunk != 0 ||
      operand.group_stride % chunk != 0)
    return "its runs do not all begin at multiples of 16 bytes";
  if (reinterpret_cast<std::uintptr_t>(operand.data) % kVectorBytes != 0)
    return "its pointer is no multiple of 16 bytes";
  return nullptr;
}

// The first, fastest, loader that can.
inline Loader loader_for(const Operand& operand, const Element& element) {
  for (const Loader loader : {Loader::along_depth, Loader::along_side})
    if (why_not(loader, operand, element) == nullptr) return loader;
  return Loader::elements;
}

// Why a plan cannot serve; null where it can.
inline const char* why_not(Direction direction, const Plan& plan, const Gemm& gemm, const Element& element) {
  if (plan.engine == Engine::wgmma) return "wgmma is Hopper's and serves a problem as a whole";
  if (plan.engine == Engine::grouped) return "grouped is for groups of few channels, a problem as a whole";
  if (plan.engine != engine_for(element))
    return plan.engine == Engine::fma ? "fma is for float64 and exact float32"
                                      : "mma is for float16, bfloat16 and tf32";
  if (plan.tile == 0 && element.dtype == DType::float64)
    return "float64's 128x128 tile would not fit the registers";
  if (why_not(plan.a, gemm.a, element) != nullptr) return "A is not contiguous and aligned that way";
  if (why_not(plan.b, gemm.b, element) != nullptr) return "B is not contiguous and aligned that way";
  if (plan.a == Loader::elements && gemm.a.border.exists())
    return "a border is read through the index by copies of 16 bytes alone";
  if (!loaders_exist(plan.a, plan.b)) return "B is gathered one element at a time only where A is too";
  if (plan.splits < 1) return "splits must be at least 1";
  if (plan.splits > 1 && direction != Direction::backward_weight)
    return "only backward_weight splits its reduction";
  if (blocks_of(gemm, kTiles[plan.tile]) * plan.splits >= std::int64_t(1) << 31)
    return "more than 2^31 tiles of output";
  return nullptr;
}

// Parts of backward_weight's long reduction: enough blocks to fill a GPU twice with the largest tile, parts
// long enough to be worth a block, partial sums within the workspace limit, positions in a part below 2^30.
inline int splits_for(Direction direction, const Problem& problem) {
  if (direction != Direction::backward_weight) return 1;
  constexpr std::int64_t kWantedBlocks = 256, kShortestPart = 16;  // in stages
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const std::int64_t rows = g.c / g.groups * g.r * g.s, columns = g.k / g.groups, depth = g.n * g.p * g.q;
  const std::int64_t blocks =
      ceil_div(rows, kTiles[0].rows) * ceil_div(columns, kTiles[0].columns) * g.groups;
  const std::int64_t stages = ceil_div(depth, element.depth_per_stage());
  const std::int64_t wanted = ceil_div(kWantedBlocks, blocks);
  const std::int64_t affordable = kWorkspaceLimit / (rows * columns * g.groups * element.accumulator_bytes());
  const std::int64_t splits = std::min({wanted, ceil_div(stages, kShortestPart), affordable});
  const std::int64_t needed = ceil_div(depth, std::int64_t(1) << 30);
  return static_cast<int>(std::max({splits, needed, std::int64_t(1)}));
}

// Every engine and tile, each with the fastest loaders the operands' memory allows: with others it would do
// the same arithmetic and wait longer.
inline Selection candidates(Direction direction, const Gemm& gemm, const Element& element, int splits) {
  Plan plan;
  plan.a = loader_for(gemm.a, element);
  plan.b = loader_for(gemm.b, element);
  if (!loaders_exist(plan.a, plan.b)) plan.a = Loader::elements;
  plan.splits = splits;
  Selection selection;
  for (const Engine engine : {Engine::mma, Engine::fma}) {
    for (int tile = 0; tile < kTileCount; ++tile) {
      plan.engine = engine;
      plan.tile = tile;
      selection.add({plan, why_not(direction, plan, gemm, element), {}});
    }
  }
  return selection;
}

// `tuned`: a plan to prefer where it can serve, or null. `splits`: of the others; a workspace was made for
// it.
inline Selection select(Direction direction, const Gemm& gemm, const Element& element, const Gpu& gpu,
                        int splits, const Plan* tuned = nullptr) {
  Selection selection = candidates(direction, gemm, element, splits);
  for (int i = 0; i < selection.count; ++i) {
    Candidate& candidate = selection.candidates[i];
    if (candidate.why_not != nullptr) continue;
    candidate.cost = cost(candidate.plan, gemm, element, gpu);
    if (selection.chosen < 0 || candidate.cost.seconds < selection.candidates[selection.chosen].cost.seconds)
      selection.chosen = i;
  }
  if (selection.chosen < 0) throw std::invalid_argument("conv2d: no kernel serves this problem");
  if (tuned != nullptr && why_not(direction, *tuned, gemm, element) == nullptr) {
    selection.chosen = selection.count;
    selection.add({*tuned, nullptr, cost(*tuned, gemm, element, gpu)});
    selection.tuned = true;
  }
  return selection;
}

// A plan that came from outside is refused, with the reason, where it cannot serve.
inline void validate(Direction direction, const Plan& plan, const Gemm& gemm, const Element& element) {
  const int tiles = plan.engine == Engine::wgmma     ? kSm90TileCount
                    : plan.engine == Engine::grouped ? kGroupedTileCount
                                                     : kTileCount;
  if (plan.tile < 0 || plan.tile >= tiles) throw std::invalid_argument("conv2d: there is no such tile");
  if (const char* why = why_not(direction, plan, gemm, element))
    throw std::invalid_argument("conv2d: the plan '" + describe(plan) +
                                "' cannot serve this problem: " + why);
}

}  // namespace cnnkernels::conv
