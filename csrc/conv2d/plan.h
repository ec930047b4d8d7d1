// How a convolution is going to be run: what select.h decides, the launchers obey and tests may dictate.
#pragma once

#include <cstdint>
#include <string>

namespace cnnkernels::conv2d {

enum class Direction { forward, backward_input, backward_weight };

// fma: one multiply-add at a time, fp64 and exact fp32. mma: tensor cores, fp16, bf16 and tf32. wgmma: the
// same on Hopper alone, fed by TMA (hopper.h).
enum class Engine { fma, mma, wgmma };

// How an operand's tile reaches shared memory; each gives the same values, so the same bits.
enum class Loader {
  along_depth,  // 16-byte asynchronous copies; memory is contiguous along the reduction
  along_side,   // 16-byte asynchronous copies; memory is contiguous along the output's rows (or columns)
  elements,     // one element at a time: odd channel counts, NCHW windows, unaligned pointers
};

// Rows and columns of the output one block makes.
struct Tile {
  int rows, columns;
};
inline constexpr Tile kTiles[] = {{128, 128}, {64, 64}, {128, 32}};
inline constexpr int kTileCount = 3;
inline constexpr Tile kHopperTiles[] = {{128, 256}, {256, 128}, {128, 128}, {256, 64},
                                        {128, 64},  {64, 256},  {64, 128}};
inline constexpr int kHopperTileCount = 7;

struct Plan {
  Engine engine = Engine::fma;
  int tile = 1;  // index into kTiles, or of wgmma into kHopperTiles
  Loader a = Loader::elements, b = Loader::elements;
  int splits = 1;  // parts of the reduction summed separately; only backward_weight has more than one
  int blocks = 0;  // of wgmma, which take tiles in turn; 0: one a processor
};

inline const Tile& tile_of(const Plan& plan) {
  return plan.engine == Engine::wgmma ? kHopperTiles[plan.tile] : kTiles[plan.tile];
}

inline std::string describe(const Plan& plan) {
  const auto name = [](Loader loader) {
    return loader == Loader::along_depth  ? "along depth"
           : loader == Loader::along_side ? "along side"
                                          : "elements";
  };
  const Tile& tile = tile_of(plan);
  const std::string shape = std::to_string(tile.rows) + "x" + std::to_string(tile.columns);
  const std::string splits = ", splits " + std::to_string(plan.splits);
  if (plan.engine == Engine::wgmma) return "wgmma " + shape + splits;
  return (plan.engine == Engine::mma ? "mma " : "fma ") + shape + ", A " + name(plan.a) + ", B " +
         name(plan.b) + splits;
}

}  // namespace cnnkernels::conv2d
