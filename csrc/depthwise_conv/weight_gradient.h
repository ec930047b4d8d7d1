// backward_weight in plain C++: dw[k, r, s] = the sum over n, p, q of dy[n, k, p, q] x[n, k / m, h, w] with
// h = p stride_h - pad_h + r dilation_h and w likewise. weight_gradient.cuh has the kernel.
#pragma once

#include "slab.h"

namespace cnnkernels::depthwise_conv {

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
  std::uint8_t unused[3] = {};
  Index images, channels;  // N, K
  FastDivide multiplier;

  FastDivide strips, lines;  // of grad_output: the positions that are summed over, with the images

  FastDivide lanes, workers;            // threads of a block; tiles are the rest
  Index tiles_here;                     // of a block
  FastDivide tiles_along;               // tiles of the filter along a
  FastDivide lane_blocks, tile_blocks;  // splits are the rest
  std::int64_t rounds_per_split;        // of positions, or of boxes

  CNN_HOST_DEVICE std::int64_t positions() const {
    return std::int64_t(images) * strips.divisor * lines.divisor;
  }
  // What the plan's splits share: positions, or boxes of them.
  std::int64_t rounds(const Plan& plan) const {
    if (!plan.slab) return positions();
    return images * ceil_div(strips.divisor, plan.strips) * ceil_div(b.result_size, plan.lines);
  }
  // Threads beside each other: the plan's lanes are vectors of filters, or groups of a slab.
  std::int64_t threads_lanes(const Plan& plan) const {
    return plan.slab ? plan.lanes * std::int64_t(multiplier.divisor) : plan.lanes;
  }
  std::int64_t tiles(const Plan& plan) const {
    return ceil_div(a.taps, tile_taps(plan.chunk)) * ceil_div(b.taps, tile_lines(plan.vector, plan.chunk));
  }
};

// With slabs a block holds boxes of the error and of what it meets of the input in shared memory, one pair
// after another. The plan's lanes are groups, its strips and lines the box of the error.
struct Boxes {
  Region input, grad_output;
  std::int64_t bytes;
  Index grad_output_at;        // bytes into shared memory
  Index groups, all_groups;    // of a block, of an image
  FastDivide each;             // filters of a group
  FastDivide strips, columns;  // of a box
  FastDivide strip_blocks, column_blocks;
  bool all_rows, all_columns;  // the input's box is not cut
  std::uint8_t unused[6] = {};
};

inline Boxes boxes_of(const WeightGradient& g, const Plan& plan, int element_bytes) {
  Boxes s{};
  s.groups = plan.lanes;
  s.all_groups = g.channels / static_cast<Index>(g.multiplier.divisor);
  s.each = g.multiplier;
  s.strips = FastDivide(plan.strips);
  s.columns = FastDivide(plan.lines);
  s.strip_blocks = FastDivide(ceil_div(g.strips.divisor, plan.strips));
  s.column_blocks = FastDivide(ceil_div(g.b.result_size, plan.lines));
  const std::int64_t rows = std::int64_t(plan.strips) * weight_strip(1);
  const Extents input{s.all_groups, g.a.source_size, g.b.source_size};
  const Extents error{g.channels, g.a.result_size, g.b.result_size};
  const Extents read{s.groups, reach_of(g.a, rows), reach_of(g.b, plan.lines)};
  const Extents made{s.groups * std::int64_t(s.each.divisor), least(rows, error.rows),
                     least(plan.lines, error.columns)};
  s.all_rows = read.rows >= input.rows;
  s.all_columns = read.columns >= input.columns;
  s.input = region(g.input, g.channels_last, g.images, input, read, element_bytes);
  s.grad_output = region(g.grad_output, g.channels_last, g.images, error, made, element_bytes);
  s.grad_output_at = static_cast<Index>(s.input.bytes(element_bytes));
  s.bytes = s.input.bytes(element_bytes) + s.grad_output.bytes(element_bytes);
  return s;
}

// Shared memory for the sums of a block's workers, in rows of an odd length. Boxes lie there before them.
inline std::int64_t bytes_of_sums(const WeightGradient& g, const Plan& plan, int accumulator_bytes) {
  const std::int64_t taps = tile_lines(plan.vector, plan.chunk) * tile_taps(plan.chunk);
  return plan.tiles * taps * g.threads_lanes(plan) * plan.vector * (plan.workers | 1) * accumulator_bytes;
}

WeightGradient weight_gradient(const Problem& problem, bool along_row);

struct WeightGradientPointers {
  const void *grad_output, *input;
  void* parts;  // [splits, K, R, S] of the accumulator's type
};

template <class T>
void launch_weight_gradient(const WeightGradient& gradient, const Plan& plan,
                            const WeightGradientPointers& pointers, std::uintptr_t stream);

}  // namespace cnnkernels::depthwise_conv
