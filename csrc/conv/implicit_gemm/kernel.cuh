// The one kernel of conv2d: an implicit GEMM in a ring of stages in shared memory, and its launcher. Element
// type, tile and the two loaders are template parameters; direction and layout are data (conv/gemm.h).
#pragma once

#include <type_traits>

#include "../../common/launch.h"
#include "../../common/shared_limits.h"
#include "border_table.cuh"
#include "depth_table.cuh"
#include "../../gemm/engine_fma.cuh"
#include "../../gemm/engine_mma.cuh"
#include "../epilogue.cuh"
#include "launch.h"
#include "loader.cuh"

namespace cnnkernels::conv {

// A block's tile is found from its index: columns fastest, so that neighbouring blocks share windows, then
// rows, groups and parts of the reduction.
struct Schedule {
  FastDivide column_tiles, row_tiles, groups;
  std::int32_t unused = 0;
  std::int64_t depth_per_split = 0;
};

// In: what the engine multiplies. T: what lies in memory.
template <class In, int kTile, Loader kA, Loader kB>
struct Config {
  static constexpr bool kTensorCores = !std::is_same_v<In, double> && !std::is_same_v<In, float>;
  using T = std::conditional_t<std::is_same_v<In, tf32>, float, In>;
  static constexpr int kRows = kTiles[kTile].rows, kColumns = kTiles[kTile].columns;
  static constexpr bool kGathers = kA == Loader::elements;
  static constexpr Footprint kFootprint =
      footprint(kTensorCores ? Engine::mma : Engine::fma, kTile, kGathers, sizeof(T));
  static constexpr int kThreads = kFootprint.threads, kBlocks = kFootprint.blocks;

  using LoaderA = OperandLoader<T, kRows, kA, kThreads>;
  using LoaderB = OperandLoader<T, kColumns, kB, kThreads>;
  using TileA = typename LoaderA::Tile;
  using TileB = typename LoaderB::Tile;
  using Multiplier = typename std::conditional_t<
      kTensorCores,
      std::type_identity<gemm::MmaEngine<In, T, TileA, TileB, kFootprint.warp_rows, kFootprint.warp_columns>>,
      std::type_identity<
          gemm::FmaEngine<std::conditional_t<kTensorCores, float, T>, TileA, TileB, kThreads>>>::type;

  static constexpr int kStageElements = TileA::kElements + TileB::kElements;
  static constexpr int kRingBytes = kStages * kStageElements * static_cast<int>(sizeof(T));
  static constexpr int kStaging =
      larger(kStagingBytes<T, kRows, kColumns>, kStagingBytes<Accumulator<T>, kRows, kColumns>);
  static constexpr int kSharedBytes = larger(kRingBytes, kStaging);
  static_assert(kSharedBytes == shared_bytes(kTile, sizeof(Accumulator<T>)));
  using Table = DepthTable<TileA::kDepth>;
  static_assert(block_bytes(larger(kSharedBytes, kRingBytes + 4 * int(kBorderEntries)),
                            sizeof(typename Table::Shared)) <= kEveryBlockBytes);
};

template <class C>
CNN_KERNEL(C::kThreads, C::kBlocks)
implicit_gemm(const __grid_constant__ Gemm gemm, const Schedule schedule, const Store how, void* partial) {
  using T = typename C::T;
  CNN_DYNAMIC_SHARED(memory);
  T* ring = reinterpret_cast<T*>(memory);
  const auto tile_a = [&](int stage) { return ring + stage % kStages * C::kStageElements; };
  const auto tile_b = [&](int stage) { return tile_a(stage) + C::TileA::kElements; };

  std::uint32_t column_tile, row_tile, group;
  std::uint32_t rest = schedule.column_tiles.divmod(blockIdx.x, column_tile);
  rest = schedule.row_tiles.divmod(rest, row_tile);
  const std::uint32_t split = schedule.groups.divmod(rest, group);
  const std::int64_t first_row = std::int64_t(row_tile) * C::kRows;
  const std::int64_t first_column = std::int64_t(column_tile) * C::kColumns;
  const std::int64_t first_depth = split * schedule.depth_per_split;
  const std::int64_t depth_left = gemm.a.depth.extent - first_depth;
  const auto depth = static_cast<std::int32_t>(min(depth_left, schedule.depth_per_split));
  const int stages = (depth + C::TileA::kDepth - 1) / C::TileA::kDepth;

  using Table = typename C::Table;
  CNN_SHARED(typename Table::Shared, depths, [1]);
  Table table(gemm, depths[0], first_depth, depth);
  typename C::LoaderA a(gemm.a, group, first_row);
  typename C::LoaderB b(gemm.b, group, first_column);
  typename C::Multiplier engine;
  const BorderTable border(gemm.a.border, memory + C::kRingBytes);
  if (!C::kGathers && border.exists()) border.fill(C::kThreads);

  const auto start = [&](int stage) {
    if (stage < stages) {
      b.start(tile_b(stage), table.b(stage), NoBorder{});
      a.start(tile_a(stage), table.a(stage), border);
    }
    cp_async_commit();  // also when empty: the wait below counts groups
    table.prepare(stage + 1);
  };
  const auto finish = [&](int stage) {
    if (stage < stages) {
      a.finish(tile_a(stage));
      b.finish(tile_b(stage));
    }
  };

  table.prepare(0);
  for (int stage = 0; stage < kStages - 1; ++stage) {
    __syncthreads();
    start(stage);
    finish(stage);
  }
  for (int stage = 0; stage < stages; ++stage) {
    cp_async_wait<kStages - 2>();  // this thread's copies of `stage` have landed;
    __syncthreads();  // so have everyone's, and everyone is done with the slot that is filled next
    start(stage + kStages - 1);
    engine.multiply(tile_a(stage), tile_b(stage));
    finish(stage + kStages - 1);  // after the arithmetic, so that the loads had time to arrive
  }
  __syncthreads();  // the ring becomes the epilogue's; the last wait left only empty groups

  const Epilogue& epilogue = gemm.epilogue;
  apply_to_columns<T>(engine, epilogue, group * gemm.c.column.extent + first_column,
                      gemm.c.column.extent - first_column);
  using Sum = Accumulator<T>;
  const std::int64_t slice = group * gemm.c.group_stride;
  T* data = static_cast<T*>(gemm.c.data) + slice;
  StagedTile<C::kRows, C::kColumns, C::kThreads> tile(gemm.c, how.along_rows, first_row, first_column,
                                                      memory);
  if (partial == nullptr && !by_output(epilogue)) {
    tile.template fill<T>(engine);
    return tile.template store<T>(data, how.vectors, AsItIs{});
  }
  tile.template fill<Sum>(engine);
  if (partial != nullptr) {
    const std::int64_t outputs = gemm.groups * gemm.c.row.extent * gemm.c.column.extent;
    tile.template store<Sum>(static_cast<Sum*>(partial) + split * outputs + slice, how.vectors, AsItIs{});
  } else {
    const T* residual = static_cast<const T*>(epilogue.residual);
    if (residual != nullptr) residual += slice;
    tile.template store<Sum>(data, how.vectors,
                             Finish<T>{residual, epilogue.activation, Sum(epilogue.slope)});
  }
}

template <class C>
void launch_config(const Gemm& gemm, const Plan& plan, void* partial, std::uintptr_t stream) {
  const std::int64_t column_tiles = ceil_div(gemm.columns(), C::kColumns),
                     row_tiles = ceil_div(gemm.rows(), C::kRows);
  const std::int64_t stages = ceil_div(gemm.depth(), C::TileA::kDepth);
  const std::int64_t stages_per_split = larger<std::int64_t>(1, ceil_div(stages, plan.splits));
  const std::int64_t splits = plan.splits;
  const std::int64_t blocks = column_tiles * row_tiles * gemm.groups * splits;
  if (blocks >= std::int64_t(1) << 31) throw_invalid_argument("conv2d: more than 2^31 tiles of output");

  Schedule schedule;
  schedule.column_tiles = FastDivide(column_tiles);
  schedule.row_tiles = FastDivide(row_tiles);
  schedule.groups = FastDivide(gemm.groups);
  schedule.depth_per_split = stages_per_split * C::TileA::kDepth;

  Store how;
  const std::size_t stored = partial != nullptr ? sizeof(Accumulator<typename C::T>) : sizeof(typename C::T);
  const void* data = partial != nullptr ? partial : gemm.c.data;
  const int chunk = gemm::kChunkBytes / static_cast<int>(stored);
  how.along_rows = gemm.c.row.stride[0] == 1 && gemm.c.column.stride[0] != 1;
  const Axis& along = how.along_rows ? gemm.c.row : gemm.c.column;
  const Axis& across = how.along_rows ? gemm.c.column : gemm.c.row;
  how.vectors = along.contiguous(chunk) && across.keeps_alignment(chunk) &&
                gemm.c.group_stride % chunk == 0 &&
                (gemm.rows() * gemm.columns() * gemm.groups % chunk == 0 || splits == 1) &&
                reinterpret_cast<std::uintptr_t>(data) % gemm::kChunkBytes == 0 &&
                reinterpret_cast<std::uintptr_t>(gemm.epilogue.residual) % gemm::kChunkBytes == 0;

  const std::size_t shared = larger(C::kSharedBytes, C::kRingBytes + gemm.a.border.bytes());
  launch(implicit_gemm<C>, Launch{dim3(static_cast<unsigned>(blocks)), dim3(C::kThreads), shared, stream},
         gemm, schedule, how, partial);
}

// Turns a plan's numbers into template parameters.
template <class Body>
void with_loader(Loader loader, Body&& body) {
  switch (loader) {
    case Loader::along_depth:
      return body(std::integral_constant<Loader, Loader::along_depth>{});
    case Loader::along_side:
      return body(std::integral_constant<Loader, Loader::along_side>{});
    case Loader::elements:
      return body(std::integral_constant<Loader, Loader::elements>{});
  }
}

template <class In>
void launch_gemm(const Gemm& gemm, const Plan& plan, void* partial, std::uintptr_t stream) {
  const auto with_tile = [&](auto tile) {
    const auto with_a = [&](auto a) {
      const auto with_b = [&](auto b) {
        constexpr int kTile = decltype(tile)::value;
        constexpr Loader kA = decltype(a)::value, kB = decltype(b)::value;
        if constexpr (loaders_exist(kA, kB)) {
          launch_config<Config<In, kTile, kA, kB>>(gemm, plan, partial, stream);
        } else {
          throw_invalid_argument("conv2d: no such pair of loaders");
        }
      };
      with_loader(plan.b, with_b);
    };
    with_loader(plan.a, with_a);
  };
  switch (plan.tile) {
    case 0:
      if constexpr (!std::is_same_v<In, double>) return with_tile(std::integral_constant<int, 0>{});
      break;
    case 1:
      return with_tile(std::integral_constant<int, 1>{});
    case 2:
      return with_tile(std::integral_constant<int, 2>{});
  }
  throw_invalid_argument("conv2d: no such tile");
}

}  // namespace cnnkernels::conv
