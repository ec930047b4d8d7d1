// How long a plan should take on a GPU: a model, for ranking plans and for seeing what bounds them. No
// constant in it was fitted to a measurement.
//
// An SM works on its share of the tiles in turns of as many blocks as it holds. In a turn, a stage takes the
// longest of: its arithmetic (of every block), its reads of shared memory, the copies of its operands out of
// L2, and, however few blocks there are, the memory's latency over the stages that are under way together.
// Before the first stage stands one latency with nothing to do (the pipeline fills), and after the last the
// tile is written. All turns together take no less than the whole convolution's tensors take from device
// memory.
#pragma once

#include "gemm.h"
#include "selection.h"

namespace cnnkernels::conv {

inline constexpr double kLatency = 0.7e-6;  // from a copy's start until its data are there
inline constexpr double kLaunch = 3e-6;     // a kernel's start
// Instructions that gathering one element takes a thread: the main loops of benchmarks/instructions.json,
// with and without, are 12 to 17 an element apart, in every tile and type.
inline constexpr int kGatherClocks = 14;
inline constexpr int kSharedBytesPerClock = 128, kLanesPerClock = 128;

// Bytes of shared memory a block takes; the epilogue reuses the ring and the table of a border behind it.
// As Config::kSharedBytes.
inline constexpr int shared_bytes(int tile, int accumulator_bytes, int border = 0) {
  const Tile& t = kTiles[tile];
  const int ring = kStages * (t.rows + t.columns) * gemm::kTileRowBytes + border;
  const int staging =
      (t.rows + t.columns) * 8 + t.rows * t.columns * accumulator_bytes + std::max(t.rows, t.columns) * 16;
  return std::max(ring, staging);
}

// FLOP/s that an engine reaches at best.
inline double peak(Engine engine, const Element& element, const Gpu& gpu) {
  if (engine == Engine::fma) return element.dtype == DType::float64 ? gpu.fma64 : gpu.fma32;
  return gpu.mma_share * (element.bytes() == 4 ? gpu.tensor_tf32 : gpu.tensor16);
}

// The launch that adds the parts of a split reduction: it reads all and writes one.
inline double adding_seconds(double outputs, const Element& element, int splits, const Gpu& gpu) {
  if (splits == 1) return 0;
  return kLaunch +
         outputs * (splits * element.accumulator_bytes() + element.bytes()) / (kReachedOfMemory * gpu.memory);
}

// Of device memory: what is read once, and the result, or its partial sums where the reduction is split.
inline double memory_seconds(double read, double outputs, const Element& element, int splits,
                             const Gpu& gpu) {
  const double written = splits == 1 ? element.bytes() : splits * element.accumulator_bytes();
  return (read * element.bytes() + outputs * written) / (kReachedOfMemory * gpu.memory);
}

inline Cost cost(const Plan& plan, const Gemm& gemm, const Element& element, const Gpu& gpu) {
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

  // Clocks and seconds of one stage of one block.
  const double per_clock = peak(plan.engine, element, gpu) / (2 * sms * gpu.clock);
  const double multiply = tile.rows * tile.columns * element.depth_per_stage() / per_clock;
  const double read = block.threads / 32 * (block.warp_rows + block.warp_columns) * gemm::kTileRowBytes /
                      static_cast<double>(kSharedBytesPerClock);
  const int gathered = (gathers ? tile.rows : 0) + (plan.b == Loader::elements ? tile.columns : 0);
  const double gather =
      static_cast<double>(gathered) * element.depth_per_stage() * kGatherClocks / kLanesPerClock;
  const double arithmetic = (std::max(multiply, read) + gather) / gpu.clock;
  const double copies = (tile.rows + tile.columns) * gemm::kTileRowBytes / (gpu.l2 / sms);
  const double written = plan.splits == 1 ? element.bytes() : element.accumulator_bytes();
  // The last row's and column's tiles write less: what is written on average.
  const double store = outputs * plan.splits / c.tiles * written / (kReachedOfMemory * gpu.memory / sms);

  const int shared = shared_bytes(plan.tile, element.accumulator_bytes(), gemm.a.border.bytes());
  const std::int64_t fitting = gpu.shared_bytes / (shared + 1024);
  const std::int64_t held = std::max<std::int64_t>(1, std::min<std::int64_t>(block.blocks, fitting));
  const std::int64_t busiest = ceil_div(c.tiles, gpu.processors);
  const auto turns = [&](std::int64_t blocks, std::int64_t count) {
    if (blocks == 0) return;
    const double stage = std::max({blocks * arithmetic, blocks * copies, kLatency / (kStages - 1)});
    c.arithmetic += count * stages * blocks * arithmetic;
    c.operands += count * stages * blocks * copies;
    c.filling += count * kLatency;
    c.writing += count * blocks * store;
    c.seconds += count * (stages * stage + kLatency + blocks * store);
  };
  turns(held, busiest / held);
  turns(busiest % held, 1);
  c.waves = static_cast<double>(c.tiles) / (sms * held);
  const double read_once =
      gemm.image_elements + static_cast<double>(gemm.columns()) * gemm.depth() * gemm.groups;
  c.memory = memory_seconds(read_once, outputs, element, plan.splits, gpu);
  c.seconds = std::max(c.seconds, c.memory) + kLaunch + adding_seconds(outputs, element, plan.splits, gpu);
  return c;
}

}  // namespace cnnkernels::conv
