// Which problems the kernel of grouped.h serves, with what patch and bundle, and what that should cost: pure
// functions of the problem, on the host.
//
// It serves every layer that it can, whatever the cost: its steps are not those of the other engines, so a
// choice by cost, which depends on the batch, would let a sample's bits depend on its neighbours. Among its
// tiles the bits are the same.
#pragma once

#include <optional>
#include <string>

#include "cost.h"
#include "grouped.h"
#include "select.h"

namespace cnnkernels::conv2d::grouped {

// Wider groups fill the tiles of the other engines.
inline constexpr std::int64_t kWidestGroup = 16;

// Why this engine cannot serve a problem, whatever the batch but for sizes beyond 31 bits.
inline std::optional<std::string> cannot_serve(Direction direction, const Problem& problem) {
  const Conv2dGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const std::int64_t chunk = elements_of_chunk(element), c = g.c / g.groups, k = g.k / g.groups;
  const std::int64_t summed = direction == Direction::forward ? c : k;
  const std::int64_t made = direction == Direction::forward ? k : c;
  const auto number = [](std::int64_t value) { return std::to_string(value); };

  if (g.padding_mode != PaddingMode::zeros) return "it pads with zeros alone";
  if (direction == Direction::backward_weight) return "it has no kernel for the filter's gradient";
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

// Why a tile cannot serve a problem that the engine can; null where it can.
inline const char* cannot_serve(const std::vector<Sweep>& sweeps, const Problem& problem, const Tile& tile) {
  for (const Sweep& sweep : sweeps) {
    const Patch patch = patch_for(sweep, problem, tile, kStagedBytes);
    if (patch.bytes > kSharedLimit) return "the windows of a patch do not fit shared memory";
    const double patches = static_cast<double>(sweep.images) * patch.across.divisor * patch.down.divisor;
    if (patches * patch.bundles.divisor >= 1u << 31) return "more than 2^31 patches";
  }
  return nullptr;
}

// Blocks that an SM holds at a time.
inline std::int64_t held_blocks(const Patch& patch, Index share, const Machine& machine) {
  return std::clamp<std::int64_t>(machine.shared_bytes / (patch.bytes + 1024), 1, blocks_of(share));
}

// As conv2d::cost. In a block nothing is multiplied while a region is on its way; the other blocks of the SM
// multiply then.
inline Cost cost(const Plan& plan, const std::vector<Sweep>& sweeps, const Problem& problem,
                 const Machine& machine) {
  const Element element{problem.dtype, problem.tf32};
  const double sms = machine.processors,
               per_clock = peak(Engine::mma, element, machine) / (2 * sms * machine.clock);
  constexpr double kProducts = 16 * 8 * 16;                              // of an instruction
  constexpr int kChunkClocks = 32 * kChunkBytes / kSharedBytesPerClock;  // for a warp to read a chunk a lane
  Cost c;
  double products = 0, outputs = 0, read = 0;
  for (const Sweep& s : sweeps) {
    const Patch p = patch_for(s, problem, tile_of(plan), element.bytes());
    const Index share = groups_of_chunk(s.channels, element);
    const std::int64_t tiles = std::int64_t(p.count) * p.bundles.divisor;
    // A step's instructions, and its reads: of pixels, of filters, of the table.
    const double sets =
        share == 1 ? static_cast<double>(ceil_div(s.filters, kFilterTile)) / p.passes.divisor : share;
    const double instructions = kPixelTiles * sets;
    // Runs of 8 pixels 2 or 4 apart meet the same banks that often.
    const double conflicts = share == 1 ? std::gcd(s.w.step, 4) : 1;
    const double clocks =
        kChunkClocks * (kPixelTiles * conflicts * std::max(share, 1) + std::max(share / 2, 1)) +
        std::max(share / 2, 1);
    const double steps =
        static_cast<double>(p.groups / share) * p.pixel_groups.divisor * p.passes.divisor * p.steps;
    const double arithmetic = steps * std::max(instructions * kProducts / per_clock, clocks) / machine.clock;
    const double region =
        static_cast<double>(p.region_rows) * p.region_columns.divisor * p.chunks.divisor * kChunkBytes;
    const double copies = region / (machine.l2 / sms);
    const double made = static_cast<double>(s.images) * s.h.results * s.w.results * s.groups * s.filters;
    const double store = made / tiles * element.bytes() / (kReachedOfMemory * machine.memory / sms);
    const std::int64_t held = held_blocks(p, share, machine), busiest = ceil_div(tiles, machine.processors);

    c.tiles += tiles;
    c.waves += tiles / (sms * held);
    c.arithmetic += busiest * arithmetic;
    c.operands += busiest * copies;
    c.writing += busiest * store;
    c.filling += ceil_div(busiest, held) * kLatency;
    products += static_cast<double>(tiles) * steps * instructions * kProducts;
    outputs += made;
    c.seconds += kLaunch;
    read = static_cast<double>(s.images) * s.h.size * s.w.size * s.groups * s.channels;
  }
  const Conv2dGeometry& g = problem.geometry;
  const double weights = static_cast<double>(g.k) * (g.c / g.groups) * g.r * g.s;
  c.useful = static_cast<double>(g.n) * g.p * g.q * weights / std::max(1.0, products);
  c.memory = memory_seconds(read + weights, outputs, element, 1, machine);
  c.seconds += std::max(std::max(c.arithmetic, c.operands) + c.writing + c.filling, c.memory);
  return c;
}

inline std::vector<Candidate> candidates(const std::vector<Sweep>& sweeps, const Problem& problem,
                                         const Machine& machine) {
  std::vector<Candidate> found;
  Plan plan;
  plan.engine = Engine::grouped;
  for (plan.tile = 0; plan.tile < kGroupedTileCount; ++plan.tile) {
    const char* why = cannot_serve(sweeps, problem, tile_of(plan));
    found.push_back({plan, why, why == nullptr ? cost(plan, sweeps, problem, machine) : Cost{}});
  }
  return found;
}

}  // namespace cnnkernels::conv2d::grouped
