// backward_weight in plain C++: dw[k, r, s] = the sum over n, p, q of dy[n, k, p, q] x[n, k / m, h, w] with
// h = p stride_h - pad_h + r dilation_h and w likewise. weight_gradient.cuh has the kernel.
#pragma once

#include "views.h"

namespace cnnkernels::depthwise_conv2d {

// A thread's results along a strip, and the tile of taps that it sums: chunk taps along the strip, and as
// many across as its registers hold for `vector` channels.
constexpr int weight_strip(int vector) { return vector > 1 ? 4 : 8; }
constexpr int tile_taps(int chunk) { return chunk > 0 ? chunk : 3; }  // along the strip
constexpr int tile_lines(int vector, int chunk) { return vector > 1 && chunk > 3 ? 1 : tile_taps(chunk); }

struct WeightGradient {
  Axis a, b;  // as forward's
  View input, grad_output;
  Taps taps;
  bool channels_last;
  Index images, channels;  // N, K
  FastDivide multiplier;

  FastDivide strips, lines;  // of grad_output: the positions that are summed over, with the images

  FastDivide lanes, workers;            // threads of a block; tiles are the rest
  Index tiles_here;                     // of a block
  FastDivide tiles_along;               // tiles of the filter along a
  FastDivide lane_blocks, tile_blocks;  // splits are the rest
  Index positions_per_split;

  std::int64_t positions() const { return std::int64_t(images) * strips.divisor * lines.divisor; }
  std::int64_t tiles(const Plan& plan) const {
    return ceil_div(a.taps, tile_taps(plan.chunk)) * ceil_div(b.taps, tile_lines(plan.vector, plan.chunk));
  }
};

WeightGradient weight_gradient(const Problem& problem, bool along_row);

struct WeightGradientPointers {
  const void *grad_output, *input;
  void* parts;  // [splits, K, R, S] of the accumulator's type
};

template <class T>
void launch_weight_gradient(const WeightGradient& gradient, const Plan& plan,
                            const WeightGradientPointers& pointers, std::uintptr_t stream);

}  // namespace cnnkernels::depthwise_conv2d
