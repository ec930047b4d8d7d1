// What the kernels of backward_weight share: a thread's tile of the filter's taps, and the sum of the tiles
// of a block.
#pragma once

#include "../common/types.h"
#include "read.cuh"
#include "weight_gradient.h"

namespace cnnkernels::depthwise_conv {

// sum[line][tap] += error * x over one strip, V channels.
template <class T, int V, int kChunk, class Pattern>
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

  // A line of zeros beside the image: an error that is not finite makes NaN of them.
  CNN_DEVICE void add_zeros(int r, const Wide (&error)[kStrip]) {
    Wide zero{};
#pragma unroll
    for (int o = 0; o < kStrip; ++o) {
#pragma unroll
      for (int v = 0; v < V; ++v) zero[v] = multiply_add(Accumulator<T>(0), error[o][v], zero[v]);
    }
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
#pragma unroll
      for (int v = 0; v < V; ++v) sum[r][t][v] += zero[v];
    }
  }

  // `count` results of the strip exist. The others must not meet x: 0 times infinity is no zero.
  template <class Step>
  CNN_DEVICE void add(int r, const Axis& axis, const T* __restrict__ line, Step step, Index a, Index tap,
                      const Wide (&error)[kStrip], Index count) {
    if constexpr (kChunk > 0) {
      constexpr int kWindow = Pattern::window(kStrip, kTaps);
      const Index first = Pattern::first(axis, a, tap, kTaps);
      Vector<T, V> window[kWindow];
      read_window<V>(window, axis, line, step, first);
#pragma unroll
      for (int o = 0; o < kStrip; ++o) {
        if (o >= count) break;
#pragma unroll
        for (int i = 0; i < kWindow; ++i) {
#pragma unroll
          for (int t = 0; t < kTaps; ++t)
            if (Pattern::meet(o, t, i, kTaps)) multiply(sum[r][t], window[i], error[o]);
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

// A thread's tile, channels and share of the positions.
struct Share {
  Index tile, worker, lane;       // of the block
  Index tap_a, tap_b;             // the tile's first
  Index first_channel, channels;  // of the block's lanes, of all
  bool active;
};

template <int V, class Tile>
CNN_DEVICE Share share_of(const WeightGradient& g, Index lane_block, Index tile_block) {
  const Index lanes = extent(g.lanes);
  Share share;
  // Neighbouring threads stand at neighbouring memory: lanes of NHWC, places of NCHW.
  share.tile = static_cast<Index>(threadIdx.x);
  if (g.channels_last) {
    share.lane = split(share.tile, g.lanes);
    share.worker = split(share.tile, g.workers);
  } else {
    share.worker = split(share.tile, g.workers);
    share.lane = split(share.tile, g.lanes);
  }
  share.first_channel = lane_block * lanes * V;
  Index line = tile_block * g.tiles_here + share.tile;
  const Index tiles = extent(g.tiles_along) * ((g.b.taps + Tile::kLines - 1) / Tile::kLines);
  share.active =
      share.tile < g.tiles_here && line < tiles && share.first_channel + share.lane * V < g.channels;
  share.tap_a = split(line, g.tiles_along) * Tile::kTaps;
  share.tap_b = line * Tile::kLines;
  return share;
}

inline constexpr Index kRun = 16;  // sums that one thread adds

// Adds the workers' sums in shared memory, runs of them first, and writes the block's part.
template <int V, class Tile, class A>
CNN_DEVICE void write_part(const WeightGradient& g, const Share& share, Index tile_block, Index part,
                           const Tile& tile, A* sums, A* __restrict__ parts) {
  const Index lanes = extent(g.lanes), workers = extent(g.workers), pitch = workers | 1;
  if (share.tile < g.tiles_here) {
#pragma unroll
    for (int r = 0; r < Tile::kLines; ++r) {
#pragma unroll
      for (int t = 0; t < Tile::kTaps; ++t) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Index place =
              (((share.tile * Tile::kLines + r) * Tile::kTaps + t) * lanes + share.lane) * V + v;
          sums[place * pitch + share.worker] = tile.sum[r][t][v];
        }
      }
    }
  }
  __syncthreads();

  const Index places = g.tiles_here * Tile::kLines * Tile::kTaps * lanes * V;
  const Index thread = static_cast<Index>(threadIdx.x), threads = static_cast<Index>(blockDim.x);
  const auto add = [&](Index place, Index from, Index to, Index step) {
    A sum = sums[place * pitch + from];
    for (Index i = from + step; i < to; i += step) sum += sums[place * pitch + i];
    return sum;
  };
  for (Index run = 0; run < workers; run += kRun) {
    // Neighbouring threads at neighbouring places: the odd pitch spreads them over the banks.
    for (Index place = (thread + run) % threads; place < places; place += threads)
      sums[place * pitch + run] = add(place, run, min(run + kRun, workers), 1);
  }
  __syncthreads();
  for (Index place = thread; place < places; place += threads) {
    Index tap = place / V;
    const Index k = share.first_channel + split(tap, g.lanes) * V + place % V;
    Index here = tile_block * g.tiles_here + tap / (Tile::kTaps * Tile::kLines);
    const Index tap_of_a = split(here, g.tiles_along) * Tile::kTaps + tap % Tile::kTaps;
    const Index tap_of_b = here * Tile::kLines + tap / Tile::kTaps % Tile::kLines;
    if (k >= g.channels || tap_of_a >= g.a.taps || tap_of_b >= g.b.taps) continue;
    parts[(std::int64_t(part) * g.channels + k) * g.taps.size + std::int64_t(tap_of_a) * g.taps.step_a +
          std::int64_t(tap_of_b) * g.taps.step_b] = add(place, 0, workers, kRun);
  }
}

}  // namespace cnnkernels::depthwise_conv
