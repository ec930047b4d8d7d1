// How a pair of convolutions is going to be run: what select.h decides, the launchers obey and tests may
// dictate.
#pragma once

#include <cstdint>

namespace cnnkernels::depthwise_separable_conv {

// Output pixels and output channels one block makes. A thread makes the intermediate of 4 pixels at a time in
// 16 bytes of channels, of which a stage holds 128: so a tile has 2 threads a pixel.
struct Tile {
  int rows, columns;
};
inline constexpr Tile kTiles[] = {{64, 32}, {128, 96}, {128, 160}};
inline constexpr int kTileCount = 3;

// How the depthwise part reads its input; each gives the same values, so the same bits.
enum class Reader {
  rows_of_three,  // 3 columns of taps, stride 1: neighbouring pixels share what they read, 16 bytes at a time
  vectors,        // any window, 16 bytes of channels at a time
  elements,       // NCHW, odd channel counts, channel multipliers, unaligned pointers
};

struct Plan {
  int tile = 0;  // index into kTiles
  Reader reader = Reader::elements;
  bool keeps = false;  // a block makes every output channel of its pixels, and keeps their whole intermediate
  bool wgmma = false;  // of compute capability 9.0, in place of mma.sync
  int patch_columns = 8;  // a tile's pixels form a patch this wide; a power of two from 4 to the tile's rows
};

}  // namespace cnnkernels::depthwise_separable_conv
