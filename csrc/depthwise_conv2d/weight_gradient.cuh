// The kernel of backward_weight, and its launch. A thread sums one tile of the filter's taps, for V channels,
// over a share of the strips of the error, in registers and in the accumulator's type; the threads that share
// a tile add their sums in shared memory, blocks write theirs to `parts`, and a second kernel adds those. All
// in a fixed order.
#pragma once

#include "../common/launch.h"
#include "../common/types.h"
#include "read.cuh"
#include "weight_gradient.h"

namespace cnnkernels::depthwise_conv2d {

// sum[line][tap] += error * x over one strip, V channels.
template <class T, int V, int kChunk, class Walk>
struct TapTile {
  static constexpr int kStrip = weight_strip(V), kTaps = tile_taps(kChunk), kLines = tile_lines(V, kChunk);
  using Wide = Vector<Accumulator<T>, V>;
  Wide sum[kLines][kTaps];

  CNN_DEVICE void clear() {
#pragma unroll
    for (int r = 0; r < kLines; ++r) {
#pragma unroll
      for (int t = 0; t < kTaps; ++t) sum[r][t] = Wide{};
    }
  }

  // `count` results of the strip exist. The others must not meet x: 0 times infinity is no zero.
  CNN_DEVICE void add(int r, const Axis& axis, const T* __restrict__ line, std::int64_t step, Index a,
                      Index tap, const Wide (&error)[kStrip], Index count) {
    if constexpr (kChunk > 0) {
      constexpr int kWindow = Walk::window(kStrip, kTaps);
      const Index first = Walk::first(axis, a, tap, kTaps);
      Vector<T, V> window[kWindow];
#pragma unroll
      for (int i = 0; i < kWindow; ++i) window[i] = element<V>(axis, line, step, first + i);
#pragma unroll
      for (int o = 0; o < kStrip; ++o) {
        if (o >= count) break;
#pragma unroll
        for (int i = 0; i < kWindow; ++i) {
#pragma unroll
          for (int t = 0; t < kTaps; ++t)
            if (Walk::meet(o, t, i, kTaps)) multiply(sum[r][t], window[i], error[o]);
        }
      }
    } else {
#pragma unroll
      for (int o = 0; o < kStrip; ++o) {
        if (o >= count) break;
#pragma unroll
        for (int t = 0; t < kTaps; ++t)
          multiply(sum[r][t], element<V>(axis, line, step, axis.source(a + o, tap + t)), error[o]);
      }
    }
  }

 private:
  static CNN_DEVICE void multiply(Wide& sum, const Vector<T, V>& x, const Wide& error) {
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = multiply_add(widen(x[v]), error[v], sum[v]);
  }
};

template <class T, int V, int kChunk, class Walk>
CNN_KERNEL(kThreads, 1)
weight_gradient_kernel(const WeightGradient g, const T* __restrict__ grad_output, const T* __restrict__ input,
                       Accumulator<T>* __restrict__ parts) {
  using A = Accumulator<T>;
  using Tile = TapTile<T, V, kChunk, Walk>;
  CNN_DYNAMIC_SHARED(shared);
  A* const sums = reinterpret_cast<A*>(shared);  // [tile, line, tap, lane, V][worker]
  const Index lanes = extent(g.lanes), workers = extent(g.workers), pitch = workers | 1;

  // Neighbouring threads stand at neighbouring memory: lanes of NHWC, places of NCHW.
  Index tile_here = static_cast<Index>(threadIdx.x), lane, worker;
  if (g.channels_last) {
    lane = split(tile_here, g.lanes);
    worker = split(tile_here, g.workers);
  } else {
    worker = split(tile_here, g.workers);
    lane = split(tile_here, g.lanes);
  }
  Index part = static_cast<Index>(blockIdx.x);
  const Index first_channel = split(part, g.lane_blocks) * lanes * V;
  const Index first_tile = split(part, g.tile_blocks) * g.tiles_here;
  const Index tiles = extent(g.tiles_along) * ((g.b.taps + Tile::kLines - 1) / Tile::kLines);

  const Index channel = first_channel + lane * V;
  Index line = first_tile + tile_here;
  const bool active = tile_here < g.tiles_here && line < tiles && channel < g.channels;
  const Index tap_a = split(line, g.tiles_along) * Tile::kTaps, tap_b = line * Tile::kLines;

  Tile tile;
  tile.clear();
  if (active) {
    const T* const x =
        input + std::int64_t(g.multiplier.quotient(static_cast<std::uint32_t>(channel))) * g.input.channel;
    const T* const dy = grad_output + channel * g.grad_output.channel;
    const Index positions = g.images * extent(g.strips) * extent(g.lines);
    const std::int64_t begin = std::int64_t(part) * g.positions_per_split;
    const Index end = static_cast<Index>(min(begin + g.positions_per_split, std::int64_t(positions)));
#pragma unroll 1
    for (std::int64_t i = begin + worker; i < end; i += workers) {
      Index image = static_cast<Index>(i), strip, b;
      if constexpr (V > 1) {
        strip = split(image, g.strips);
        b = split(image, g.lines);
      } else {
        b = split(image, g.lines);
        strip = split(image, g.strips);
      }
      const Index a = strip * Tile::kStrip, count = min(Index(Tile::kStrip), g.a.result_size - a);
      const T* const errors = dy + image * g.grad_output.image + b * g.grad_output.b + a * g.grad_output.a;
      typename Tile::Wide error[Tile::kStrip];
#pragma unroll
      for (int o = 0; o < Tile::kStrip; ++o)
        error[o] = widened(o < count ? load<V>(errors + o * g.grad_output.a) : Vector<T, V>{});
#pragma unroll
      for (int r = 0; r < Tile::kLines; ++r) {
        const Index from = tap_b + r < g.b.taps ? g.b.source(b, tap_b + r) : -1;
        if (from < 0) continue;
        tile.add(r, g.a, x + image * g.input.image + from * g.input.b, g.input.a, a, tap_a, error, count);
      }
    }
  }

  if (tile_here < g.tiles_here) {
#pragma unroll
    for (int r = 0; r < Tile::kLines; ++r) {
#pragma unroll
      for (int t = 0; t < Tile::kTaps; ++t) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Index place = (((tile_here * Tile::kLines + r) * Tile::kTaps + t) * lanes + lane) * V + v;
          sums[place * pitch + worker] = tile.sum[r][t][v];
        }
      }
    }
  }
  __syncthreads();

  const Index places = g.tiles_here * Tile::kLines * Tile::kTaps * lanes * V;
  for (Index place = static_cast<Index>(threadIdx.x); place < places;
       place += static_cast<Index>(blockDim.x)) {
    Index tap = place / V;
    const Index k = first_channel + split(tap, g.lanes) * V + place % V;
    Index here = first_tile + tap / (Tile::kTaps * Tile::kLines);
    if (k >= g.channels || here >= tiles) continue;
    const Index tap_of_a = split(here, g.tiles_along) * Tile::kTaps + tap % Tile::kTaps;
    const Index tap_of_b = here * Tile::kLines + tap / Tile::kTaps % Tile::kLines;
    if (tap_of_a >= g.a.taps || tap_of_b >= g.b.taps) continue;
    A sum = sums[place * pitch];
    for (Index i = 1; i < workers; ++i) sum += sums[place * pitch + i];
    parts[(std::int64_t(part) * g.channels + k) * g.taps.size + std::int64_t(tap_of_a) * g.taps.step_a +
          std::int64_t(tap_of_b) * g.taps.step_b] = sum;
  }
}

// The kernels that select.h's chunk_exists promises.
template <class T, int V, int kChunk>
auto weight_gradient_kernel_for(const Axis& a) {
  if constexpr (kChunk < 7) {
    if (a.stride == 2) return &weight_gradient_kernel<T, V, kChunk, Forward<2>>;
  }
  return &weight_gradient_kernel<T, V, kChunk, Forward<1>>;
}

template <class T, int V>
auto weight_gradient_kernel_for(const Axis& a, int chunk) {
  if constexpr (sizeof(T) <= 4) {
    if (chunk == 5) return weight_gradient_kernel_for<T, V, 5>(a);
  }
  if constexpr (sizeof(T) == 2) {
    if (chunk == 7) return weight_gradient_kernel_for<T, V, 7>(a);
  }
  return chunk == 3 ? weight_gradient_kernel_for<T, V, 3>(a) : &weight_gradient_kernel<T, V, 0, Anyhow>;
}

template <class T>
void launch_weight_gradient(const WeightGradient& gradient, const Plan& plan,
                            const WeightGradientPointers& pointers, std::uintptr_t stream) {
  constexpr int V = 16 / sizeof(T);
  WeightGradient g = gradient;
  const std::int64_t tiles = g.tiles(plan);
  g.lanes = FastDivide(plan.lanes);
  g.workers = FastDivide(plan.workers);
  g.tiles_here = plan.tiles;
  g.tiles_along = FastDivide(ceil_div(g.a.taps, tile_taps(plan.chunk)));
  g.lane_blocks = FastDivide(ceil_div(g.channels, plan.lanes * plan.vector));
  g.tile_blocks = FastDivide(ceil_div(tiles, plan.tiles));
  g.positions_per_split = static_cast<Index>(ceil_div(g.positions(), plan.splits));
  const double blocks = double(g.lane_blocks.divisor) * g.tile_blocks.divisor * plan.splits;
  if (blocks >= 0x1p31 || double(g.positions()) + kThreads >= 0x1p31)
    throw std::invalid_argument("depthwise_conv2d: more than 2^31 blocks or positions");
  const std::size_t places = std::size_t(plan.tiles) * tile_lines(plan.vector, plan.chunk) *
                             tile_taps(plan.chunk) * plan.lanes * plan.vector;
  const Launch how{dim3(static_cast<unsigned>(blocks)),
                   dim3(static_cast<unsigned>(plan.lanes * plan.tiles * plan.workers)),
                   places * (plan.workers | 1) * sizeof(Accumulator<T>), stream};
  launch(plan.vector == 1 ? weight_gradient_kernel_for<T, 1>(g.a, plan.chunk)
                          : weight_gradient_kernel_for<T, V>(g.a, plan.chunk),
         how, g, static_cast<const T*>(pointers.grad_output), static_cast<const T*>(pointers.input),
         static_cast<Accumulator<T>*>(pointers.parts));
}

}  // namespace cnnkernels::depthwise_conv2d
