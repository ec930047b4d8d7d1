#include "cost.h"

#include "../common/model.h"

namespace cnnkernels::conv {

namespace {

// Of the kernels with mma, by tile, for elements of 2 and of 4 bytes: the instructions that a block issues in
// a stage, and outside of the loop.
constexpr double kStageSlots[kTileCount][2] = {{1131, 1783}, {619, 755}, {655, 791}};
constexpr double kTileSlots[kTileCount][2] = {{7374, 10746}, {4268, 4604}, {4949, 5508}};
// Wavefronts of a block that looks up where a stage's elements lie.
constexpr double kTableWavefronts[kTileCount][2] = {{144, 136}, {144, 72}, {144, 72}};
constexpr double kGatherWavefronts = 0.22;  // of an element that is gathered
constexpr double kWarpsToHideIn = 8;        // of an SM: two on each of its four schedulers

// What a stage of a block asks of an SM, in clocks.
struct Stage {
  double multiply = 0;  // units that multiply
  double shared = 0;    // wavefronts of shared memory
  double issue = 0;     // instructions, without
  double gather = 0;    // those that gather elements, while nothing is multiplied
  double alone = 0;     // where no other warp has work for a scheduler: products wait for all the rest

  double busiest() const { return std::max(std::max(multiply, issue) + gather, shared); }
  const char* limit() const {
    if (std::max(multiply, issue) + gather < shared) return "shared";
    return multiply < issue || multiply < gather ? "issue" : "tensor";
  }
};

double products_of(const Tile& tile) {  // instructions of mma: 16 x 8, and 32 bytes deep
  return tile.rows / 16.0 * (tile.columns / 8.0) * (gemm::kTileRowBytes / 32.0);
}

Stage stage_of(const Plan& plan, const Element& element, const Footprint& block, const Gpu& gpu) {
  const Tile& tile = kTiles[plan.tile];
  const int depth = element.depth_per_stage(), warps = block.threads / 32;
  const int gathered =
      (plan.a == Loader::elements ? tile.rows : 0) + (plan.b == Loader::elements ? tile.columns : 0);
  const int copied = tile.rows + tile.columns - gathered;
  const double per_clock = peak(plan.engine, element, gpu) / (2 * gpu.processors * gpu.clock);
  Stage stage;
  stage.multiply = tile.rows * tile.columns * depth / per_clock;
  stage.gather = static_cast<double>(gathered) * depth * kGatherClocks / kLanesPerClock;
  const double bytes =
      static_cast<double>(warps * (block.warp_rows + block.warp_columns) + copied) * gemm::kTileRowBytes;
  stage.shared = bytes / kSharedBytesPerClock + gathered * depth * kGatherWavefronts;
  if (plan.engine != Engine::mma) return stage;
  const bool wide = element.bytes() == 4;
  stage.shared += kTableWavefronts[plan.tile][wide];
  stage.issue = kStageSlots[plan.tile][wide] / kIssuedPerClock;
  stage.alone = stage.multiply + (kStageSlots[plan.tile][wide] - products_of(tile)) / kIssuedPerClock;
  return stage;
}

}  // namespace

Cost cost(const Plan& plan, const Gemm& gemm, const Element& element, const Gpu& gpu) {
  const Tile& tile = kTiles[plan.tile];
  const bool gathers = plan.a == Loader::elements;
  const Footprint block = footprint(plan.engine, plan.tile, gathers, element.bytes());
  const double sms = gpu.processors;
  const double outputs = static_cast<double>(gemm.rows()) * gemm.columns() * gemm.groups;

  Cost c;
  c.tiles = blocks_of(gemm, tile) * plan.splits;
  const std::int64_t stages = ceil_div(ceil_div(gemm.depth(), element.depth_per_stage()), plan.splits);
  const double padded = static_cast<double>(c.tiles) * tile.rows * tile.columns *
                        std::max<std::int64_t>(1, stages) * element.depth_per_stage();
  c.useful = outputs * gemm.depth() / padded;

  // Seconds of one stage of one block.
  const Stage stage_clocks = stage_of(plan, element, block, gpu);
  const double arithmetic = stage_clocks.busiest() / gpu.clock, alone = stage_clocks.alone / gpu.clock;
  const double copies =
      (tile.rows + tile.columns) * gemm::kTileRowBytes / l2_of_sm(gpu, static_cast<double>(c.tiles));
  const double written = plan.splits == 1 ? element.bytes() : element.accumulator_bytes();
  // The last row's and column's tiles write less: what is written on average.
  double store = outputs * plan.splits / c.tiles * written / (kReachedOfMemory * gpu.memory / sms);
  if (plan.engine == Engine::mma)
    store = std::max(store, kTileSlots[plan.tile][element.bytes() == 4] / kIssuedPerClock / gpu.clock);

  const int shared = shared_bytes(plan.tile, element.accumulator_bytes(), gemm.a.border.bytes());
  const std::int64_t fitting = gpu.shared_bytes / (shared + 1024);
  const std::int64_t held = std::max<std::int64_t>(1, std::min<std::int64_t>(block.blocks, fitting));
  const std::int64_t busiest = ceil_div(c.tiles, gpu.processors);
  const auto turns = [&](std::int64_t blocks, std::int64_t count) {
    if (blocks == 0) return;
    const bool hides = blocks * block.threads / 32 >= kWarpsToHideIn;
    const double busy = std::max(blocks * arithmetic, hides ? 0 : alone);
    const double stage = std::max({busy, blocks * copies, kLatency / (kStages - 1)});
    c.arithmetic += count * stages * busy;
    c.operands += count * stages * blocks * copies;
    c.filling += count * kLatency;
    c.writing += count * blocks * store;
    c.seconds += count * (stages * stage + kLatency + blocks * store);
  };
  turns(held, busiest / held);
  turns(busiest % held, 1);
  c.limit = stage_clocks.limit();
  c.waves = static_cast<double>(c.tiles) / (sms * held);
  const double read_once =
      gemm.image_elements + static_cast<double>(gemm.columns()) * gemm.depth() * gemm.groups;
  c.memory = memory_seconds(read_once, outputs, element, plan.splits, gpu);
  c.seconds = std::max(c.seconds, c.memory) + kLaunch + adding_seconds(outputs, element, plan.splits, gpu);
  return c;
}

}  // namespace cnnkernels::conv
