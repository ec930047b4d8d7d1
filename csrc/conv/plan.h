// How a convolution is going to be run: what select.h decides, the launchers obey and tests may dictate.
#pragma once

#include <cstdint>

namespace cnnkernels::conv {

enum class Direction { forward, backward_input, backward_weight };

// fma: one multiply-add at a time, fp64 and exact fp32. mma: tensor cores, fp16, bf16 and tf32. wgmma: the
// same on Hopper alone, fed by TMA (sm90/limits.h). grouped: tensor cores on groups of few channels
// (grouped.h).
enum class Engine { fma, mma, wgmma, grouped };

// How an operand's tile reaches shared memory; each gives the same values, so the same bits.
enum class Loader {
  along_depth,  // 16-byte asynchronous copies; memory is contiguous along the reduction
  along_side,   // 16-byte asynchronous copies; memory is contiguous along the output's rows (or columns)
  elements,     // one element at a time: odd channel counts, NCHW windows, unaligned pointers
};

// Kernels that would gather B alone are not compiled: its memory is the smaller, so A is gathered beside it.
inline constexpr bool loaders_exist(Loader a, Loader b) {
  return b != Loader::elements || a == Loader::elements;
}

// What is copied first into memory that the fast loaders and TMA read (packing.h).
enum class Packing {
  none,      // nothing: tensors as they lie
  channels,  // channels together, padded to whole runs of 16 bytes
  rows,      // the taps of a window's row together as channels, for few channels
};

// Rows and columns of the output one block makes.
struct Tile {
  int rows, columns;
  bool ping_pong = false;  // of wgmma: two of them at a time, one multiplied while the other is stored
  // Of wgmma: blocks of a cluster, which make tiles below each other and bring the columns' operand together.
  int cluster = 1;
  bool short_runs = false;  // of wgmma: also compiled for stages of several taps (sm90/limits.h)
};
inline constexpr Tile kTiles[] = {{128, 128}, {64, 64}, {128, 32}};
inline constexpr int kTileCount = 3;
// Short runs come with few channels and often few columns. Among all tiles these four are, by the model,
// never more than a few percent behind the best for them.
inline constexpr Tile kSm90Tiles[] = {{128, 256},
                                      {256, 128, false, 1, true},
                                      {128, 128},
                                      {256, 64, false, 1, true},
                                      {128, 64, false, 1, true},
                                      {64, 256},
                                      {64, 128},
                                      {128, 128, true, 1, true},
                                      {128, 256, false, 2},
                                      {256, 128, false, 2}};
inline constexpr int kSm90TileCount = 10;
// Of grouped: the most pixels of a patch, and channels of a bundle of groups.
inline constexpr Tile kGroupedTiles[] = {{256, 64}, {128, 64}, {64, 64}, {128, 32}, {64, 32}, {64, 16}};
inline constexpr int kGroupedTileCount = 6;

inline constexpr int kStages = 4;  // of the reduction held in shared memory at a time

// What a kernel of the implicit GEMM takes of an SM.
struct Footprint {
  int threads;
  int blocks;                   // an SM should hold; the kernels' registers are bounded so that it can
  int warp_rows, warp_columns;  // of a stage that one warp reads
};

// Registers are what is scarce: beside the sums of 128 x 128 outputs, gathering one element at a time, or
// holding 32-bit ones, takes twice the threads. `gathers`: A is loaded element by element. `bytes`: of an
// element.
inline constexpr Footprint footprint(Engine engine, int tile, bool gathers, int bytes) {
  const Tile& t = kTiles[tile];
  Footprint f{};
  f.threads = tile == 0 && (gathers || bytes == 4) ? 256 : 128;
  f.blocks = tile == 0 ? 256 / f.threads : engine == Engine::fma ? 2 : gathers ? 3 : 4;
  if (engine == Engine::mma) {
    f.warp_rows = tile == 0 ? 64 : 32;
    f.warp_columns = t.rows * t.columns * 32 / (f.threads * f.warp_rows);
  } else {  // threads form a grid over the tile, a warp is a 4 x 8 patch of it
    const int across = f.threads >= 256 ? 16 : 8;
    f.warp_rows = 4 * t.rows * across / f.threads;
    f.warp_columns = 8 * t.columns / across;
  }
  return f;
}

struct Plan {
  Engine engine = Engine::fma;
  int tile = 1;  // index into kTiles, of wgmma into kSm90Tiles, of grouped into kGroupedTiles
  Loader a = Loader::elements, b = Loader::elements;
  int splits = 1;  // parts of the reduction summed separately; only backward_weight has more than one
  // Of wgmma and grouped, whose blocks take tiles in turn; 0: as many as the processors hold.
  int blocks = 0;
  Packing packing = Packing::none;  // engine and loaders are those of the packed tensors
  int images = 0;                   // packed at a time; 0: as many as the workspace limit allows
  // false: where it cannot serve, the selection decides (a measured plan is a preference).
  bool binding = true;

  bool operator==(const Plan&) const = default;
};

inline const Tile& tile_of(const Plan& plan) {
  return plan.engine == Engine::wgmma     ? kSm90Tiles[plan.tile]
         : plan.engine == Engine::grouped ? kGroupedTiles[plan.tile]
                                          : kTiles[plan.tile];
}

}  // namespace cnnkernels::conv
