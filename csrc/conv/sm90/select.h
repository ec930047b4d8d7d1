// Which tile Hopper's kernel takes for a problem: as select.h, for an engine that serves all of a problem in
// one launch of blocks that stay and take tile after tile.
//
// Wherever it can serve it goes before mma.sync: were the cheaper engine taken, a sample's bits could depend
// on the batch, as the two engines add in steps of different length. Among its tiles the bits are the same.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../../common/giving_way.h"
#include "../../common/model.h"
#include "../cost.h"
#include "limits.h"

namespace cnnkernels::conv::sm90 {

inline std::optional<std::string> why_not(Direction direction, const Problem& problem, const Gpu& gpu) {
  if (const char* why = why_not_wgmma(gpu)) return why;
  if (gave_way(Yielding::conv_wgmma, static_cast<int>(direction), problem.dtype)) return kGaveWay;
  return cannot_serve(direction, problem);
}

// One product of a problem in the kernel's terms, and the stages of 128 bytes that each of its tiles sums.
struct Product {
  std::int64_t rows, columns, stages;
};

inline std::vector<Product> products(Direction direction, const Problem& problem, int splits) {
  const ConvGeometry& g = problem.geometry;
  const std::int64_t bytes = Element{problem.dtype, problem.tf32}.bytes(), elements = kRowBytes / bytes;
  const std::int64_t c = g.c / g.groups, k = g.k / g.groups, pixels = g.n * g.p * g.q;
  const int span = span_of(direction, problem);
  if (direction == Direction::forward) return {{pixels, k, stages_of(g.r * g.s, c * bytes, span)}};
  if (direction == Direction::backward_weight)
    return {{k, g.r * g.s * ceil_div(c, elements) * elements, ceil_div(ceil_div(pixels, elements), splits)}};
  std::vector<Product> found;
  for (std::int64_t a = 0; a < std::min(g.stride_h, g.h); ++a) {
    const PhaseAxis h = phase_axis(a, g.h, g.r, g.stride_h, g.pad_h, g.dilation_h);
    for (std::int64_t b = 0; b < std::min(g.stride_w, g.w); ++b) {
      const PhaseAxis w = phase_axis(b, g.w, g.s, g.stride_w, g.pad_w, g.dilation_w);
      found.push_back({g.n * h.pixels * w.pixels, c, stages_of(h.taps * w.taps, k * bytes, span)});
    }
  }
  return found;
}

// Row tiles of an extent; a cluster's come together, also where the last ones lie outside.
inline std::int64_t row_tiles(std::int64_t rows, const Tile& tile) {
  return ceil_div(rows, std::int64_t(tile.rows) * tile.cluster) * tile.cluster;
}

// As conv::cost: a block's stages run one behind the other from the first tile to the last, so the pipeline
// fills once. Sums are written while nothing is multiplied, but for the last ones if tiles alternate.
inline Cost cost(const Plan& plan, Direction direction, const Problem& problem, const Gpu& gpu) {
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const Tile& tile = tile_of(plan);
  const int blocks = plan.blocks > 0 ? plan.blocks : gpu.processors;
  const double sms = std::max(blocks / tile.cluster, 1) * tile.cluster;
  const double depth = kRowBytes / element.bytes();

  Cost c;
  double stages = 0;  // of all tiles
  for (const Product& p : products(direction, problem, plan.splits)) {
    const std::int64_t tiles =
        row_tiles(p.rows, tile) * ceil_div(p.columns, tile.columns) * g.groups * plan.splits;
    c.tiles += tiles;
    stages += static_cast<double>(tiles) * p.stages;
  }
  const double multiply_adds = static_cast<double>(g.n) * g.p * g.q * g.k * (g.c / g.groups) * g.r * g.s;
  c.useful = multiply_adds / std::max(1.0, stages * tile.rows * tile.columns * depth);
  c.waves = c.tiles / sms;

  const double peak = kReachedOfPeak * (element.bytes() == 4 ? gpu.tensor_tf32 : gpu.tensor16);
  const double multiply = tile.rows * tile.columns * depth / (peak / (2 * gpu.processors));
  const int across = tile.rows >= 128 ? 1 : 2, width = tile.columns / across;  // of one wgmma of 64 rows
  // Tensor cores read them of shared memory, after TMA has written rows and columns there.
  const double wavefronts = tile.rows / 64 * across * (64 + width) + tile.rows + tile.columns;
  const double shared = wavefronts * kRowBytes / kSharedBytesPerClock / gpu.clock;
  // What is brought for all blocks of a cluster leaves L2 once.
  const double copies = (tile.rows + static_cast<double>(tile.columns) / tile.cluster) * kRowBytes /
                        l2_of_sm(gpu, std::min(sms, static_cast<double>(c.tiles)));
  const double written = plan.splits == 1 ? element.bytes() : element.accumulator_bytes();
  const double store = tile.rows * tile.columns * written / (kReachedOfMemory * gpu.memory / gpu.processors);

  // The busiest block's tiles, as long as the average.
  const double turns = ceil_div(c.tiles, static_cast<std::int64_t>(sms));
  const double of_turn = stages / c.tiles;
  c.arithmetic = turns * of_turn * std::max(multiply, shared);
  c.limit = shared > multiply ? "shared" : "tensor";
  c.operands = turns * of_turn * copies;
  c.filling = kLatency;
  c.writing = turns * store;
  const double x = static_cast<double>(g.n) * g.c * g.h * g.w, y = static_cast<double>(g.n) * g.k * g.p * g.q;
  const double w = static_cast<double>(g.k) * (g.c / g.groups) * g.r * g.s;
  const double outputs = direction == Direction::forward ? y : direction == Direction::backward_input ? x : w;
  c.memory = memory_seconds(x + y + w - outputs, outputs, element, plan.splits, gpu);
  const double multiplying = std::max(c.arithmetic, c.operands) + c.filling;
  const double both = tile.ping_pong ? std::max(multiplying + store, c.writing) : multiplying + c.writing;
  c.seconds = std::max(both, c.memory) + kLaunch + adding_seconds(outputs, element, plan.splits, gpu);
  return c;
}

// Parts of backward_weight's sum with which its tiles fill a GPU's processors that often, less than once
// over: long enough to be worth a block, partial sums within the workspace limit.
inline int splits_for(const Problem& problem, const Tile& tile, int waves, int processors) {
  constexpr std::int64_t kShortestPart = 8;  // in stages
  const Product p = products(Direction::backward_weight, problem, 1).front();
  const std::int64_t groups = problem.geometry.groups;
  const std::int64_t tiles = row_tiles(p.rows, tile) * ceil_div(p.columns, tile.columns) * groups;
  const std::int64_t affordable =
      kWorkspaceLimit / (p.rows * p.columns * groups * std::int64_t(sizeof(float)));
  const std::int64_t splits =
      std::min({std::int64_t(waves) * processors / tiles, p.stages / kShortestPart, affordable});
  return static_cast<int>(std::max<std::int64_t>(splits, 1));
}

// The bits of backward_weight depend on its parts. So they are chosen as an H200 would, by every Hopper.
inline std::vector<Candidate> candidates(Direction direction, const Problem& problem, const Gpu& gpu) {
  const bool parts = direction == Direction::backward_weight;
  static const Gpu& judge_of_parts = gpu_named("h200");
  const Gpu& judge = parts ? judge_of_parts : gpu;
  constexpr int kMostWaves = 4;
  std::vector<Candidate> found;
  Plan plan;
  plan.engine = Engine::wgmma;
  for (plan.tile = 0; plan.tile < kSm90TileCount; ++plan.tile) {
    if (const char* why = cannot_serve(direction, problem, tile_of(plan))) {
      found.push_back({plan, why, {}});
      continue;
    }
    for (int waves = 1, before = 0; waves <= (parts ? kMostWaves : 1); ++waves, before = plan.splits) {
      plan.splits = parts ? splits_for(problem, tile_of(plan), waves, judge.processors) : 1;
      if (plan.splits != before) found.push_back({plan, nullptr, cost(plan, direction, problem, judge)});
    }
  }
  return found;
}

}  // namespace cnnkernels::conv::sm90
