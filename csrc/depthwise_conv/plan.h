// How a depthwise convolution is going to be run: what select.h decides, the launchers obey and tests may
// dictate.
#pragma once

namespace cnnkernels::depthwise_conv {

enum class Direction { forward, backward_input, backward_weight };

inline constexpr int kThreads = 256;  // of the largest block

// A thread makes strips of results. With `vector` channels at once a strip runs along a row and its lines are
// rows; with a single channel it runs down a column and its lines are columns, so that neighbouring threads
// stand at neighbouring memory. Without `slab`, forward and backward_input have a block of
// lanes x strips x lines x images threads, backward_weight one of lanes x tiles x workers. With `slab`,
// strips x lines are the results of a block that one channel's filter makes, lanes the channels of NHWC and
// images the planes of NCHW; backward_weight has lanes of either.
struct Plan {
  int vector = 1;     // channels in one access: 16 bytes of them, or 1
  int chunk = 0;      // taps along a strip that share what was read: 3, 5, 7, or 0 for one tap at a time
  bool slab = false;  // through shared memory, in pieces of 16 bytes whatever the width and the channels
  bool band = false;  // on tensor cores
  int lanes = 1;      // vectors of channels
  int strips = 1, lines = 1, images = 1;
  int tiles = 1;    // tiles of the filter's taps
  int workers = 1;  // threads of a slab, or those that share a tile's sum
  int splits = 1;   // parts of backward_weight's sum made by different blocks
};

}  // namespace cnnkernels::depthwise_conv
