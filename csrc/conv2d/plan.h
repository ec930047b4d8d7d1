// How a convolution is going to be run: what select.h decides, the launchers obey and tests may dictate.
#pragma once

#include <cstdint>
#include <string>

namespace cnnkernels::conv2d {

enum class Direction { forward, backward_input, backward_weight };

// fma: one multiply-add at a time, fp64 and exact fp32. mma: tensor cores, fp16, bf16 and tf32.
enum class Engine { fma, mma };

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

struct Plan {
  Engine engine = Engine::fma;
  int tile = 1;  // index into kTiles
  Loader a = Loader::elements, b = Loader::elements;
  int splits = 1;  // parts of the reduction summed separately; only backward_weight has more than one
};

inline std::string describe(const Plan& plan) {
  const auto name = [](Loader loader) {
    return loader == Loader::along_depth  ? "along depth"
           : loader == Loader::along_side ? "along side"
                                          : "elements";
  };
  const Tile& tile = kTiles[plan.tile];
  return std::string(plan.engine == Engine::mma ? "mma " : "fma ") + std::to_string(tile.rows) + "x" +
         std::to_string(tile.columns) + ", A " + name(plan.a) + ", B " + name(plan.b) + ", splits " +
         std::to_string(plan.splits);
}

}  // namespace cnnkernels::conv2d
