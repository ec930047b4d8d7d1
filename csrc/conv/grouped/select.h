// Which problems the kernel of grouped.h serves, with what patch and bundle, and what that should cost: pure
// functions of the problem, on the host.
//
// It serves every layer that it can, whatever the cost: its steps are not those of the other engines, so a
// choice by cost, which depends on the batch, would let a sample's bits depend on its neighbours. Among its
// tiles the bits are the same, but for the gradient of the filter: there patches are parts of the sum, so an
// H200's choice is everyone's.
#pragma once

#include <optional>
#include <string>

#include "../cost.h"
#include "weight.h"
#include "../select.h"

namespace cnnkernels::conv::grouped {

// Wider groups fill the tiles of the other engines.
inline constexpr std::int64_t kWidestGroup = 16;

// Why this engine cannot serve a problem, whatever the batch but for sizes beyond 31 bits.
inline std::optional<std::string> cannot_serve(Direction direction, const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const std::int64_t chunk = elements_of_chunk(element), c = g.c / g.groups, k = g.k / g.groups;
  const std::int64_t summed = direction == Direction::forward ? c : k;
  const std::int64_t made = direction == Direction::forward ? k : c;
  const auto number = [](std::int64_t value) { return std::to_string(value); };

  if (g.padding_mode != PaddingMode::zeros) return "it pads with zeros alone";
  if (g.groups == 1) return "there is one group";
  if (c > kWidestGroup || k > kWidestGroup)
    return "groups of " + number(c) + " input and " + number(k) +
           " output channels are wide enough for tiles";
  if (element.bytes() != 2) return "it multiplies float16 and bfloat16";
  if (problem.layout != Layout::nhwc) return "it copies runs of channels: only channels_last has them";
  if (g.c % chunk != 0 || g.k % chunk != 0)
    return "rows of " + number(g.c) + " and " + number(g.k) + " channels are not multiples of 16 bytes";
  const auto farthest = [](std::int64_t size, std::int64_t taps, std::int64_t results, std::int64_t stride,
                           std::int64_t pad, std::int64_t dilation) {
    return std::max(size, results * stride) + pad + taps * dilation;
  };
  if (std::max(farthest(g.h, g.r, g.p, g.stride_h, g.pad_h, g.dilation_h),
               farthest(g.w, g.s, g.q, g.stride_w, g.pad_w, g.dilation_w)) >= 1 << 30)
    return "its windows pass 2^30 rows or columns";
  if (direction == Direction::backward_weight) {
    if (c % 2 != 0 || k % 2 != 0) return "a group's channels and filters are not both even";
    return std::nullopt;
  }
  if (summed == 1 || (chunk % summed != 0 && summed % chunk != 0))
    return "a group's " + number(summed) + " channels are not 2, 4 or whole chunks of 16 bytes";
  if (made % 2 != 0) return "an odd number of channels, " + number(made) + ", is made of a group";
  return std::nullopt;
}

// Elements wait to be stored as sums where an epilogue follows; room is made for that always.
inline constexpr int kStagedBytes = 4;

inline Patch patch_for(const Sweep& sweep, const Problem& problem, const Tile& tile, int staged) {
  const Element element{problem.dtype, problem.tf32};
  return best_patch(sweep, element, bundle_of(problem.geometry, element, tile), tile, staged);
}

// The parts of backward_weight's sum: blocks for an H200 to hold, no more than there are patches, partial
// sums within the workspace limit.
inline int splits_for(const Patch& patch, const Problem& problem) {
  constexpr std::int64_t kWantedBlocks = 4 * 132;
  const ConvGeometry& g = problem.geometry;
  const Gradient gradient = gradient_of(patch, problem, 1);
  const std::int64_t of_part = std::int64_t(patch.bundles.divisor) * gradient.sets.divisor;
  const std::int64_t weights = g.k * (g.c / g.groups) * g.r * g.s;
  const std::int64_t wanted =
      std::max<std::int64_t>(1, std::min({ceil_div(kWantedBlocks, of_part), std::int64_t(patch.count),
                                          kWorkspaceLimit / (weights * std::int64_t(sizeof(float)))}));
  return static_cast<int>(ceil_div(patch.count, ceil_div(patch.count, wanted)));
}

// Why a tile cannot serve a problem that the engine can; null where it can.
inline const char* cannot_serve(Direction direction, const Problem& problem, const Tile& tile) {
  for (const Sweep& sweep : sweeps(direction, problem, nullptr, nullptr, nullptr)) {
    const Patch patch = patch_for(sweep, problem, tile, kStagedBytes);
    const bool weight = direction == Direction::backward_weight;
    if ((weight ? gradient_of(patch, problem, 1).bytes : patch.bytes) > kSharedLimit)
      return "the windows of a patch do not fit shared memory";
    const double patches = static_cast<double>(sweep.images) * patch.across.divisor * patch.down.divisor;
    if (patches * patch.bundles.divisor >= 1u << 31) return "more than 2^31 patches";
  }
  return nullptr;
}

// Blocks that an SM holds at a time.
inline std::int64_t held_blocks(std::int64_t bytes, Index share, const Gpu& gpu) {
  return std::clamp<std::int64_t>(gpu.shared_bytes / (bytes + 1024), 1, blocks_of(share));
}

// What one visit of a block to a patch takes: steps of so many instructions and so many clocks of shared
// memory, and bytes that are copied.
struct Work {
  std::int64_t visits, held;
  double steps, instructions, clocks, copied;
};

inline constexpr double kProducts = 16 * 8 * 16;  // of an instruction
inline constexpr int kChunkClocks =
    32 * kChunkBytes / kSharedBytesPerClock;  // for a warp to read a chunk a lane

inline double region_bytes(const Patch& p) {
  return static_cast<double>(p.region_rows) * p.region_columns.divisor * p.chunks.divisor * kChunkBytes;
}
// Runs of 8 pixels 2 or 4 apart meet the same banks that often.
inline double conflicts(const Sweep& s) { return std::gcd(s.w.step, 4); }

inline Work work_of(const Sweep& s, const Patch& p, const Element& element, const Gpu& gpu) {
  const Index share = groups_of_chunk(s.channels, element);
  const double passes = p.passes.divisor,
               reads = std::max(share / 2, 1);  // a lane's, of the table and filters
  const double sets = share == 1 ? static_cast<double>(ceil_div(s.filters, kFilterTile)) / passes : share;
  const double pixels = kPixelTiles * (share == 1 ? conflicts(s) : share);
  Work w{};
  w.visits = std::int64_t(p.count) * p.bundles.divisor;
  w.held = held_blocks(p.bytes, share, gpu);
  w.steps = static_cast<double>(p.groups / share) * p.pixel_groups.divisor * passes * p.steps;
  w.instructions = kPixelTiles * sets;
  w.clocks = kChunkClocks * (pixels + reads) + reads;
  w.copied = region_bytes(p);
  return w;
}

inline Work work_of(const Sweep& s, const Patch& p, const Gradient& gradient, const Gpu& gpu) {
  const double row_passes = gradient.row_passes.divisor, column_passes = gradient.column_passes.divisor;
  const double rows = gradient.row_tiles / row_passes, columns = gradient.error_runs / column_passes;
  const double items = p.groups / gradient.unit_groups * row_passes * column_passes;
  Work w{};
  w.visits = std::int64_t(p.count) * p.bundles.divisor * gradient.sets.divisor;
  w.held = held_blocks(gradient.bytes, 1, gpu);
  w.steps = items / gradient.sets.divisor * (gradient.pixels / kPixelTile);
  w.instructions = rows * columns;
  w.clocks = kChunkClocks * (rows * conflicts(s) + 1) + 1;
  w.copied = region_bytes(p) + static_cast<double>(gradient.pixels) * p.result_chunks.divisor * kChunkBytes;
  return w;
}

// As conv::cost. In a block nothing is multiplied while a region is on its way; the other blocks of the SM
// multiply then.
inline Cost cost(const Plan& plan, Direction direction, const Problem& problem, const Gpu& gpu) {
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const double sms = gpu.processors, per_clock = peak(Engine::mma, element, gpu) / (2 * sms * gpu.clock);
  const double x = static_cast<double>(g.n) * g.c * g.h * g.w, y = static_cast<double>(g.n) * g.k * g.p * g.q;
  const double weights = static_cast<double>(g.k) * (g.c / g.groups) * g.r * g.s;
  const bool weight = direction == Direction::backward_weight;
  const double outputs = weight ? weights : direction == Direction::forward ? y : x;
  const double written =
      outputs * (plan.splits == 1 ? element.bytes() : plan.splits * element.accumulator_bytes());
  Cost c;
  double products = 0;
  const std::vector<Sweep> all = sweeps(direction, problem, nullptr, nullptr, nullptr);
  for (const Sweep& s : all) {
    const Patch p = patch_for(s, problem, tile_of(plan), element.bytes());
    const Work w =
        weight ? work_of(s, p, gradient_of(p, problem, plan.splits), gpu) : work_of(s, p, element, gpu);
    const std::int64_t busiest = ceil_div(w.visits, gpu.processors);
    c.tiles += w.visits;
    c.waves += w.visits / (sms * w.held);
    c.arithmetic +=
        busiest * w.steps * std::max(w.instructions * kProducts / per_clock, w.clocks) / gpu.clock;
    c.operands += busiest * w.copied / (gpu.l2 / sms);
    c.filling += ceil_div(busiest, w.held) * kLatency;
    c.writing += static_cast<double>(busiest) / w.visits * written / all.size() /
                 (kReachedOfMemory * gpu.memory / sms);
    c.seconds += kLaunch;
    products += w.visits * w.steps * w.instructions * kProducts;
  }
  c.useful = static_cast<double>(g.n) * g.p * g.q * weights / std::max(1.0, products);
  c.memory = memory_seconds(x + y + weights - outputs, outputs, element, plan.splits, gpu);
  c.seconds += std::max(std::max(c.arithmetic, c.operands) + c.writing + c.filling, c.memory) +
               adding_seconds(outputs, element, plan.splits, gpu);
  return c;
}

inline std::vector<Candidate> candidates(Direction direction, const Problem& problem, const Gpu& gpu) {
  const bool weight = direction == Direction::backward_weight;
  static const Gpu& judge_of_parts = gpu_named("h200");
  std::vector<Candidate> found;
  for (int tile = 0; tile < kGroupedTileCount; ++tile) {
    Plan plan;
    plan.engine = Engine::grouped;
    plan.tile = tile;
    if (const char* why = cannot_serve(direction, problem, tile_of(plan))) {
      found.push_back({plan, why, {}});
      continue;
    }
    if (weight) {
      const Sweep sweep = sweeps(direction, problem, nullptr, nullptr, nullptr).front();
      plan.splits = splits_for(patch_for(sweep, problem, tile_of(plan), kStagedBytes), problem);
    }
    found.push_back({plan, nullptr, cost(plan, direction, problem, weight ? judge_of_parts : gpu)});
  }
  return found;
}

}  // namespace cnnkernels::conv::grouped
