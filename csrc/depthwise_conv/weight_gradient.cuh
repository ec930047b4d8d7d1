// The kernels of backward_weight, and their launch. A thread sums one tile of the filter's taps over a share
// of the strips of the error, in registers and in the accumulator's type; the threads that share a tile add
// their sums in shared memory, blocks write theirs to `parts`, and a second kernel adds those. All in a fixed
// order.
#pragma once

#include "../common/launch.h"
#include "region.cuh"
#include "tap_tile.cuh"

namespace cnnkernels::depthwise_conv {

// V channels of NHWC a thread, from global memory. V = 1 serves what no slab holds, of either layout.
template <class T, int V, int kChunk, class Pattern>
CNN_KERNEL(kThreads, 1)
weight_gradient_kernel(const WeightGradient g, const T* __restrict__ grad_output, const T* __restrict__ input,
                       Accumulator<T>* __restrict__ parts) {
  using Tile = TapTile<T, V, kChunk, Pattern>;
  CNN_DYNAMIC_SHARED(shared);
  Index part = static_cast<Index>(blockIdx.x);
  const Index lane_block = split(part, g.lane_blocks), tile_block = split(part, g.tile_blocks);
  const Share share = share_of<V, Tile>(g, lane_block, tile_block);

  Tile tile;
  tile.clear();
  if (share.active) {
    const Index channel = share.first_channel + share.lane * V;
    const T* const x =
        input + std::int64_t(g.multiplier.quotient(static_cast<std::uint32_t>(channel))) * g.input.channel;
    const T* const dy = grad_output + channel * g.grad_output.channel;
    const std::int64_t begin = part * g.rounds_per_split;
    const Index end = static_cast<Index>(min(begin + g.rounds_per_split, g.positions()));
#pragma unroll 1
    for (std::int64_t i = begin + share.worker; i < end; i += extent(g.workers)) {
      Index image = static_cast<Index>(i);
      const Index strip = split(image, g.strips), b = split(image, g.lines);
      const Index a = strip * Tile::kStrip, count = min(Index(Tile::kStrip), g.a.result_size - a);
      const T* const errors = dy + image * g.grad_output.image + b * g.grad_output.b + a * g.grad_output.a;
      typename Tile::Wide error[Tile::kStrip];
#pragma unroll
      for (int o = 0; o < Tile::kStrip; ++o)
        error[o] = widened(o < count ? load<V>(errors + o * g.grad_output.a) : Vector<T, V>{});
#pragma unroll
      for (int r = 0; r < Tile::kLines; ++r) {
        const Index from = share.tap_b + r < g.b.taps ? g.b.source(b, share.tap_b + r) : -1;
        if (from < 0) {
          tile.add_zeros(r, error);
          continue;
        }
        tile.add(r, g.a, x + image * g.input.image + from * g.input.b, g.input.a, a, share.tap_a, error,
                 count);
      }
    }
  }
  write_part<V>(g, share, tile_block, part, tile, reinterpret_cast<Accumulator<T>*>(shared), parts);
}

// Boxes of the error and of the input through shared memory (region.h), in either layout.
template <class T, int kChunk, class Pattern>
CNN_KERNEL(kThreads, 2)
slab_weight_gradient_kernel(const WeightGradient g, const Boxes s, const T* __restrict__ grad_output,
                            const T* __restrict__ input, Accumulator<T>* __restrict__ parts) {
  using Tile = TapTile<T, 1, kChunk, Pattern>;
  CNN_DYNAMIC_SHARED(shared);
  T* const x = reinterpret_cast<T*>(shared);
  T* const dy = reinterpret_cast<T*>(shared + s.grad_output_at);
  Index part = static_cast<Index>(blockIdx.x);
  const Index group_block = split(part, g.lane_blocks), tile_block = split(part, g.tile_blocks);
  const Share share = share_of<1, Tile>(g, group_block, tile_block);
  const Index first_group = group_block * s.groups, groups = min(s.groups, s.all_groups - first_group);
  Index unit = share.lane;
  split(unit, s.each);

  Tile tile;
  tile.clear();
  const std::int64_t all = std::int64_t(g.images) * extent(s.strip_blocks) * extent(s.column_blocks);
  const std::int64_t begin = part * g.rounds_per_split;
  const Index end = static_cast<Index>(min(begin + g.rounds_per_split, all));
#pragma unroll 1
  for (std::int64_t round = begin; round < end; ++round) {
    Index image = static_cast<Index>(round);
    const Index column_begin = split(image, s.column_blocks) * extent(s.columns);
    const Index row_begin = split(image, s.strip_blocks) * extent(s.strips) * Tile::kStrip;
    const Index row_end = min(row_begin + extent(s.strips) * Tile::kStrip, g.a.result_size);
    const Index column_end = min(column_begin + extent(s.columns), g.b.result_size);
    const Axis a = s.all_rows ? g.a : g.a.reached(row_begin, row_end);
    const Axis b = s.all_columns ? g.b : g.b.reached(column_begin, column_end);
    const auto place = [&](const View& view, Index first, Index row, Index column) {
      return image * view.image + first * view.channel + row * view.a + column * view.b;
    };
    const Box in{place(g.input, first_group, s.all_rows ? 0 : g.a.first_reached(row_begin),
                       s.all_columns ? 0 : g.b.first_reached(column_begin)),
                 groups, a.source_size, b.source_size};
    const Box errors{place(g.grad_output, first_group * extent(s.each), row_begin, column_begin),
                     groups * extent(s.each), row_end - row_begin, column_end - column_begin};
    __syncthreads();  // the boxes before these have been used
    copy_in(s.input, in, x, input);
    copy_in(s.grad_output, errors, dy, grad_output);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    if (!share.active) continue;

    const T* const from_x = x + head_of(input, in.begin) + unit * s.input.pitch_unit;
    const T* const from_dy = dy + head_of(grad_output, errors.begin) + share.lane * s.grad_output.pitch_unit;
#pragma unroll 1
    for (Index i = share.worker; i < extent(s.strips) * extent(s.columns); i += extent(g.workers)) {
      Index strip = i;
      const Index column = split(strip, s.columns), row = strip * Tile::kStrip;
      const Index count = min(Index(Tile::kStrip), errors.rows - row);
      if (column >= errors.columns || count <= 0) continue;
      const T* const strip_here = from_dy + row * s.grad_output.pitch_a + column * s.grad_output.pitch_b;
      typename Tile::Wide error[Tile::kStrip];
#pragma unroll
      for (int o = 0; o < Tile::kStrip; ++o)
        error[o][0] = o < count ? widen(strip_here[o * s.grad_output.pitch_a]) : Accumulator<T>(0);
#pragma unroll
      for (int r = 0; r < Tile::kLines; ++r) {
        const Index from = share.tap_b + r < b.taps ? b.source(column_begin + column, share.tap_b + r) : -1;
        if (from < 0) {
          tile.add_zeros(r, error);
          continue;
        }
        tile.add(r, a, from_x + from * s.input.pitch_b, s.input.pitch_a, row_begin + row, share.tap_a, error,
                 count);
      }
    }
  }
  __syncthreads();  // sums go where the boxes were
  write_part<1>(g, share, tile_block, part, tile, reinterpret_cast<Accumulator<T>*>(shared), parts);
}

// Calls of(chunk, pattern), which names a kernel: those that select.h's can_chunk promises.
template <class T, class Of>
auto weight_gradient_kernel_for(const Axis& a, int chunk, Of&& of) {
  const auto with = [&](auto taps) {
    if constexpr (constexpr int kTaps = decltype(taps)::value; kTaps < 7) {
      if (a.stride == 2) return of(taps, Forward<2>{});
    }
    return of(taps, Forward<1>{});
  };
  if constexpr (sizeof(T) <= 4) {
    if (chunk == 5) return with(std::integral_constant<int, 5>{});
  }
  if constexpr (sizeof(T) == 2) {
    if (chunk == 7) return with(std::integral_constant<int, 7>{});
  }
  return chunk == 3 ? with(std::integral_constant<int, 3>{}) : of(std::integral_constant<int, 0>{}, Anyhow{});
}

template <class T>
void launch_weight_gradient(const WeightGradient& gradient, const Plan& plan,
                            const WeightGradientPointers& pointers, std::uintptr_t stream) {
  constexpr int V = 16 / sizeof(T);
  WeightGradient g = gradient;
  const Boxes boxes = plan.slab ? boxes_of(g, plan, sizeof(T)) : Boxes{};
  const std::int64_t tiles = g.tiles(plan);
  const std::int64_t lanes = g.threads_lanes(plan);
  g.lanes = FastDivide(lanes);
  g.workers = FastDivide(plan.workers);
  g.tiles_here = plan.tiles;
  g.tiles_along = FastDivide(ceil_div(g.a.taps, tile_taps(plan.chunk)));
  g.lane_blocks = FastDivide(ceil_div(g.channels, lanes * plan.vector));
  g.tile_blocks = FastDivide(ceil_div(tiles, plan.tiles));
  const std::int64_t rounds = g.rounds(plan);
  g.rounds_per_split = ceil_div(rounds, plan.splits);
  const double blocks = double(g.lane_blocks.divisor) * g.tile_blocks.divisor * plan.splits;
  if (blocks >= 0x1p31 || double(rounds) + kThreads >= 0x1p31)
    throw_invalid_argument("depthwise_conv2d: more than 2^31 blocks or positions");
  const std::int64_t sums = bytes_of_sums(g, plan, sizeof(Accumulator<T>));
  const Launch how{dim3(static_cast<unsigned>(blocks)),
                   dim3(static_cast<unsigned>(lanes * plan.tiles * plan.workers)),
                   static_cast<std::size_t>(boxes.bytes > sums ? boxes.bytes : sums), stream};
  const auto* dy = static_cast<const T*>(pointers.grad_output);
  const auto* x = static_cast<const T*>(pointers.input);
  auto* parts = static_cast<Accumulator<T>*>(pointers.parts);
  if (plan.slab) {
    const auto kernel = weight_gradient_kernel_for<T>(g.a, plan.chunk, [](auto chunk, auto pattern) {
      return &slab_weight_gradient_kernel<T, decltype(chunk)::value, decltype(pattern)>;
    });
    launch(kernel, how, g, boxes, dy, x, parts);
  } else if (plan.vector > 1) {
    const auto kernel = weight_gradient_kernel_for<T>(g.a, plan.chunk, [](auto chunk, auto pattern) {
      return &weight_gradient_kernel<T, V, decltype(chunk)::value, decltype(pattern)>;
    });
    launch(kernel, how, g, dy, x, parts);
  } else {
    launch(&weight_gradient_kernel<T, 1, 0, Anyhow>, how, g, dy, x, parts);
  }
}

}  // namespace cnnkernels::depthwise_conv
