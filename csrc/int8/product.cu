// The kernel of INT8 products: an implicit GEMM in a ring of stages in shared memory. Tile and access are
// template parameters; windows or matrix, signs and the epilogue are data.
#include "engine.cuh"
#include "epilogue.cuh"
#include "product.h"
#include "../common/launch.h"
#include "../common/shared_limits.h"

namespace cnnkernels::int8 {

namespace {

// A block's tile is found from its index, the fastest first: its row of tiles among eight, its column, the
// eight, group and part of the reduction. So blocks that run at a time form a patch of C, and share rows of A
// and B in L2.
struct Schedule {
  static constexpr std::uint32_t kPatchRows = 8;
  FastDivide patch_tiles, tiles, groups;  // of eight rows of tiles; of a group; of a part
  std::uint32_t row_tiles = 0;
  std::int32_t stages = 0, stages_per_split = 0;
  std::int64_t split_elements = 0;  // of a split's partial sums
  bool vectors = false;             // outputs are stored four at a time
  std::uint8_t unused[7] = {};
};

template <int kTile, bool kVectors, bool kSingly = false>
struct Config {
  static constexpr Tile kShape = kTiles[kTile];
  static constexpr int kRows = kShape.rows, kColumns = kShape.columns;
  static constexpr int kUnit = kVectors ? kVectorBytes : kWordBytes;
  using LoaderA = std::conditional_t<kVectors, VectorLoader<kRows, true>, WordLoader<kRows, kSingly>>;
  using LoaderB = std::conditional_t<kVectors, VectorLoader<kColumns, false>, WordLoader<kColumns, kSingly>>;
  using Multiplier = Engine<kColumns, kShape.warp_rows, kShape.warp_columns>;
  // Registers hold what is on its way, too, where operands pass through them.
  static constexpr int kBlocks = kVectors ? kShape.blocks : 3;
  static constexpr int kStage = (kRows + kColumns) * kStageBytes;
  static constexpr int kRing = larger(kStages * kStage, kRows * kColumns * 4);  // the epilogue reuses it
  static constexpr int kSharedBytes = kRing + LoaderA::kTableBytes + LoaderB::kTableBytes;
  static_assert(kSharedBytes <= kEveryBlockBytes);
  static_assert(kShape.rows / kShape.warp_rows * (kColumns / kShape.warp_columns) * 32 == kThreads);
};

// A block's sums in shared memory, a row after the other, in runs of four. Threads write pairs of eight rows
// at once: every row of four begins at other banks, by XOR.
template <int Columns>
CNN_DEVICE int place_in_staging(int row, int column) {
  return row * Columns + ((column / kRun ^ (row & 3) << 1) * kRun) + column % kRun;
}

// Writes the block's tile, a thread always the same four columns.
template <class C, class Multiplier>
CNN_DEVICE void store_tile(const Product& product, const Multiplier& engine, std::int32_t* staging,
                           std::int64_t group, std::int64_t first_row, std::int64_t first_column,
                           void* output, std::int64_t skipped, bool vectors) {
  engine.each_pair([&](int row, int column, const Vector<std::int32_t, 2>& pair) {
    store(staging + place_in_staging<C::kColumns>(row, column), pair);
  });
  __syncthreads();

  constexpr int kRuns = C::kColumns / kRun, kRowsAtOnce = kThreads / kRuns;
  const int column = static_cast<int>(threadIdx.x) % kRuns * kRun;
  const std::int64_t columns_left = product.b.extent - first_column - column;
  if (columns_left <= 0) return;
  const int count = static_cast<int>(min(columns_left, std::int64_t(kRun)));
  const std::int64_t place = group * product.b.extent + first_column + column;  // among all groups' columns
  const int begin = static_cast<int>(threadIdx.x) / kRuns;
  const Rows rows{begin,
                  static_cast<int>(min(product.a.extent - first_row, std::int64_t(C::kRows))),
                  kRowsAtOnce,
                  first_row + begin,
                  skipped + (first_row + begin) * product.columns() + place,
                  kRowsAtOnce * product.columns()};
  static_assert(kRowsAtOnce % 4 == 0);  // so that a thread's rows begin at the same banks
  const std::int32_t* const from = staging + place_in_staging<C::kColumns>(begin, column);
  finish(product.epilogue, Columns(product.epilogue, place, count, vectors), rows, output,
         [&](int i) { return load<kRun>(from + (i - begin) * C::kColumns); });
}

template <class C>
CNN_KERNEL(kThreads, C::kBlocks)
int8_product(const __grid_constant__ Product product, const Schedule schedule) {
  CNN_DYNAMIC_SHARED(memory);
  const auto tile_a = [&](int stage) { return memory + stage % kStages * C::kStage; };
  const auto tile_b = [&](int stage) { return tile_a(stage) + C::kRows * kStageBytes; };

  std::uint32_t tile, place, group;
  const std::uint32_t split = schedule.groups.divmod(schedule.tiles.divmod(blockIdx.x, tile), group);
  const std::uint32_t patch_row = schedule.patch_tiles.divmod(tile, place) * Schedule::kPatchRows;
  const std::uint32_t rows_there = min(schedule.row_tiles - patch_row, Schedule::kPatchRows);
  const std::uint32_t column_tile = place / rows_there, row_tile = patch_row + place % rows_there;
  const std::int64_t first_row = std::int64_t(row_tile) * C::kRows;
  const std::int64_t first_column = std::int64_t(column_tile) * C::kColumns;
  const int first_stage = static_cast<int>(split) * schedule.stages_per_split;
  const int stages = min(schedule.stages - first_stage, schedule.stages_per_split);
  const std::uint32_t first_unit = static_cast<std::uint32_t>(first_stage) * (kStageBytes / C::kUnit);

  unsigned char* const tables = memory + C::kRing;
  typename C::LoaderA a(product.a, product.depth, group, first_row, first_unit, tables);
  typename C::LoaderB b(product.b, product.depth, group, first_column, first_unit,
                        tables + C::LoaderA::kTableBytes);
  typename C::Multiplier engine;
  if constexpr (C::kSharedBytes > C::kRing) __syncthreads();  // the tables are there

  const auto start = [&](int stage) {
    if (stage < stages) {
      a.start(tile_a(stage));
      b.start(tile_b(stage));
    }
    cp_async_commit();  // also when empty: the wait below counts groups
  };
  const auto finish = [&](int stage) {
    if (stage < stages) {
      a.finish(tile_a(stage));
      b.finish(tile_b(stage));
    }
  };

  for (int stage = 0; stage < kStages - 1; ++stage) {
    start(stage);
    finish(stage);
  }
  for (int stage = 0; stage < stages; ++stage) {
    cp_async_wait<kStages - 2>();  // this thread's copies of `stage` have landed;
    __syncthreads();  // so have everyone's, and everyone is done with the slot that is filled next
    start(stage + kStages - 1);
    engine.multiply(tile_a(stage), tile_b(stage), product.unsigned_a);
    finish(stage + kStages - 1);  // after the arithmetic, so that the loads had time to arrive
  }
  __syncthreads();  // the ring becomes the epilogue's; the last wait left only empty groups

  store_tile<C>(product, engine, reinterpret_cast<std::int32_t*>(memory), group, first_row, first_column,
                product.output, split * schedule.split_elements, schedule.vectors);
}

// Adds the parts of a reduction in order and finishes the sums.
CNN_KERNEL(kThreads, 1)
finish_parts(const __grid_constant__ Product product, const std::int32_t* parts, int splits, FastDivide runs,
             bool vectors) {
  std::uint32_t run;
  const std::int64_t row = runs.divmod(blockIdx.x * kThreads + threadIdx.x, run);
  if (row >= product.rows()) return;
  const std::int64_t column = std::int64_t(run) * kRun, columns = product.columns();
  const int count = static_cast<int>(min(columns - column, std::int64_t(kRun)));
  const std::int64_t offset = row * columns + column;
  Vector<std::int32_t, kRun> sums{};
#pragma unroll 1
  for (int split = 0; split < splits; ++split) {
    const auto part =
        load_run<std::int32_t>(parts, split * product.rows() * columns + offset, count, vectors);
#pragma unroll
    for (int i = 0; i < kRun; ++i) sums[i] = wrapping_subtract(sums[i], -1, part[i]);
  }
  const Rows rows{0, 1, 1, row, offset, columns};
  finish(product.epilogue, Columns(product.epilogue, column, count, vectors), rows, product.output,
         [&](int) { return sums; });
}

template <class C>
void launch_tiles(Product product, const Plan& plan, void* workspace, std::uintptr_t stream) {
  const Epilogue epilogue = product.epilogue;
  void* const output = product.output;
  if (plan.splits > 1) {  // sums as they are
    product.epilogue = {};
    product.epilogue.out_dtype = DType::int32;
    product.output = workspace;
  }
  product.depth.units = FastDivide(ceil_div(product.depth.run_bytes, C::kUnit));
  const std::int64_t stages = product.depth.stages(C::kUnit, kStageBytes);
  const Extents size{product.rows(), product.b.extent, product.groups, stages};
  Schedule schedule;
  const std::int64_t column_tiles = ceil_div(product.b.extent, C::kColumns);
  const std::int64_t row_tiles = ceil_div(product.rows(), C::kRows);
  schedule.patch_tiles = FastDivide(smaller<std::int64_t>(row_tiles, Schedule::kPatchRows) * column_tiles);
  schedule.tiles = FastDivide(row_tiles * column_tiles);
  schedule.row_tiles = static_cast<std::uint32_t>(row_tiles);
  schedule.groups = FastDivide(product.groups);
  schedule.stages = static_cast<std::int32_t>(stages);
  schedule.stages_per_split = static_cast<std::int32_t>(ceil_div(stages, plan.splits));
  schedule.split_elements = product.rows() * product.columns();
  schedule.vectors = whole_runs(product.epilogue, product.output, product.b.extent);
  const auto blocks = static_cast<unsigned>(blocks_of(size, C::kShape) * plan.splits);
  launch(int8_product<C>, Launch{dim3(blocks), dim3(kThreads), C::kSharedBytes, stream}, product, schedule);
  if (plan.splits == 1) return;

  product.epilogue = epilogue;
  product.output = output;
  launch_finish_parts(product, workspace, plan.splits, stream);
}

}  // namespace

void launch_finish_parts(const Product& product, const void* parts, int splits, std::uintptr_t stream) {
  const std::int64_t runs = ceil_div(product.columns(), kRun);
  launch(finish_parts,
         Launch{dim3(static_cast<unsigned>(ceil_div(runs * product.rows(), kThreads))), dim3(kThreads), 0,
                stream},
         product, static_cast<const std::int32_t*>(parts), splits, FastDivide(runs),
         whole_runs(product.epilogue, product.output, product.b.extent));
}

void launch_product(const Product& product, const Plan& plan, void* workspace, std::uintptr_t stream) {
  if (!plan.vectors) {
    return product.a.ragged || product.b.ragged
               ? launch_tiles<Config<kWordsTile, false, true>>(product, plan, workspace, stream)
               : launch_tiles<Config<kWordsTile, false>>(product, plan, workspace, stream);
  }
  switch (plan.tile) {
    case 0:
      return launch_tiles<Config<0, true>>(product, plan, workspace, stream);
    case 1:
      return launch_tiles<Config<1, true>>(product, plan, workspace, stream);
    case 2:
      return launch_tiles<Config<2, true>>(product, plan, workspace, stream);
  }
  throw_invalid_argument("there is no such tile of INT8 products");
}

}  // namespace cnnkernels::int8
