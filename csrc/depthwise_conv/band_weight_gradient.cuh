// backward_weight of large filters on tensor cores (band.h).
#pragma once

#include "band.cuh"

namespace cnnkernels::depthwise_conv {

// A warp's sums for kTaps x kTaps taps of one channel.
template <class T, int kTaps>
struct BandTaps {
  static constexpr int kInstructions = kTaps / 16, kTiles = kTaps / kColumnTile, kPairs = kTiles / 2;
  float sum[kInstructions][kTiles][1][4];

  CNN_DEVICE void clear() {
    each(0, [](Index, Index, float& sum) { sum = 0; });
  }

  // One row of the error: `rows` are the lane's rows of the input's plane, `band` its place in the error's
  // row. Eight more taps of the filter read eight columns more, so a window of blocks moves along.
  CNN_DEVICE void add(const T* const (&rows)[kInstructions], const T* band, Index steps) {
    std::uint32_t window[kInstructions][kPairs + 1][4];
#pragma unroll
    for (int t = 0; t < kInstructions; ++t) {
#pragma unroll
      for (int j = 0; j < kPairs; ++j) ldmatrix_x4(window[t][j], rows[t] + 16 * j);
    }
#pragma unroll 1
    for (Index k = 0; k < steps; ++k) {
      const std::uint32_t b[1][2] = {{band_word(band + 16 * k), band_word(band + 16 * k + 8)}};
#pragma unroll
      for (int t = 0; t < kInstructions; ++t) {
        ldmatrix_x4(window[t][kPairs], rows[t] + 16 * (k + kPairs));
        std::uint32_t a[kTiles][4];
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int v = 0; v < 4; ++v) a[n][v] = window[t][(2 * n + v) / 4][(2 * n + v) % 4];
        }
        mma_tile<T, kTiles, 1>(sum[t], a, b);
#pragma unroll
        for (int j = 0; j < kPairs; ++j) {
#pragma unroll
          for (int v = 0; v < 4; ++v) window[t][j][v] = window[t][j + 1][v];
        }
      }
    }
  }

  // Calls of(row, column, sum) for the lane's taps.
  template <class Of>
  CNN_DEVICE void each(Index lane, Of&& of) {
#pragma unroll
    for (int t = 0; t < kInstructions; ++t) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int v = 0; v < 4; ++v)
          of(16 * t + lane / 4 + 8 * (v / 2), kColumnTile * n + 2 * (lane % 4) + v % 2, sum[t][n][0][v]);
      }
    }
  }
};

template <class T, int kTaps>
CNN_KERNEL(kThreads, 2)
band_weight_gradient_kernel(const WeightGradient g, const BandGradient s, const T* __restrict__ grad_output,
                            const T* __restrict__ input, float* __restrict__ parts) {
  using Tile = BandTaps<T, kTaps>;
  const Planes& p = s.planes;
  const Index half = 16 * s.steps + 8, plane = p.plane_rows * p.pitch;
  CNN_DYNAMIC_SHARED(shared);
  T* const planes = reinterpret_cast<T*>(shared);
  T* const bands = reinterpret_cast<T*>(shared + p.bands_at);      // [channel][row of the error][two copies]
  int* const flags = reinterpret_cast<int*>(shared + p.flags_at);  // [channel]: not all is finite

  Index part = static_cast<Index>(blockIdx.x);
  const Index first_channel = split(part, p.channel_blocks) * p.channels;
  Index tile_a = split(part, s.tiles);
  const Index left = split(tile_a, s.tiles_b) * kTaps, top = tile_a * kTaps;
  const Index channels = min(p.channels, p.all_channels - first_channel);
  const Index lane = static_cast<Index>(threadIdx.x) % 32;
  Index channel = static_cast<Index>(threadIdx.x) / 32;
  const Index warp = split(channel, g.workers);

  Tile tile;
  tile.clear();
  const std::int64_t all = std::int64_t(g.images) * extent(p.row_blocks);
  const std::int64_t first = part * g.rounds_per_split, last = min(first + g.rounds_per_split, all);
#pragma unroll 1
  for (std::int64_t round = first; round < last; ++round) {
    Index image = static_cast<Index>(round);
    const Index row_begin = split(image, p.row_blocks) * p.rows;
    const Index row_end = min(row_begin + p.rows, g.a.result_size);
    __syncthreads();  // the planes before these have been used
    clear_shared(shared, static_cast<Index>(p.bytes));
    __syncthreads();
    const Index begin = max(row_begin - g.a.pad, Index(0));
    const Index end = min(row_end - g.a.pad + g.a.taps - 1, g.a.source_size);
    if (begin < end) {
      for_each_element(input, g.input, g.channels_last, g.images * g.input.image, p.width, image,
                       first_channel, channels, begin, end,
                       [&](Index channel, Index row, Index column, T value) {
                         const Index i = row - row_begin + g.a.pad, j = column + g.b.pad;
                         if (j >= p.pitch) return;
                         planes[channel * plane + i * p.pitch + j] = value;
                         if (!is_finite(value)) atomicMax(&flags[channel], 1);
                       });
    }
    for_each_element(grad_output, g.grad_output, g.channels_last, g.images * g.grad_output.image,
                     p.result_width, image, first_channel, channels, row_begin, row_end,
                     [&](Index channel, Index row, Index column, T value) {
                       put_band(bands + (channel * p.rows + row - row_begin) * 2 * half, half, column, value);
                       if (!is_finite(value)) atomicMax(&flags[channel], 1);
                     });
    __syncthreads();
    if (channel >= channels) continue;

    if (flags[channel] == 0) {
#pragma unroll 1
      for (Index i = warp; i < row_end - row_begin; i += extent(g.workers)) {
        const T* rows[Tile::kInstructions];
#pragma unroll
        for (int t = 0; t < Tile::kInstructions; ++t)
          rows[t] = planes + channel * plane + (i + top + 16 * t + lane_row(lane)) * p.pitch + left +
                    lane_column(lane);
        tile.add(rows, bands + (channel * p.rows + i) * 2 * half + band_place(lane, half), s.steps);
      }
    } else {
      // Tap by tap, the padding's zeros too.
      tile.each(lane, [&](Index r, Index c, float& sum) {
        r += top;
        c += left;
        if (r >= g.a.taps || c >= g.b.taps) return;
#pragma unroll 1
        for (Index i = warp; i < row_end - row_begin; i += extent(g.workers)) {
#pragma unroll 1
          for (Index q = 0; q < g.b.result_size; ++q) {
            sum = multiply_add(widen(planes[channel * plane + (i + r) * p.pitch + q + c]),
                               widen(bands[(channel * p.rows + i) * 2 * half + kBefore + q]), sum);
          }
        }
      });
    }
  }

  __syncthreads();  // sums go where the planes were: [channel][warp][tap]
  float* const sums = reinterpret_cast<float*>(shared);
  constexpr Index kTile = kTaps * kTaps;
  if (channel < channels) {
    tile.each(lane, [&](Index r, Index c, float sum) {
      sums[(channel * extent(g.workers) + warp) * kTile + r * kTaps + c] = sum;
    });
  }
  __syncthreads();
  for (Index i = static_cast<Index>(threadIdx.x); i < channels * kTile; i += static_cast<Index>(blockDim.x)) {
    const Index r = top + i % kTile / kTaps, c = left + i % kTaps;
    if (r >= g.a.taps || c >= g.b.taps) continue;
    const float* const of_warps = sums + i / kTile * extent(g.workers) * kTile + i % kTile;
    float sum = of_warps[0];
    for (Index w = 1; w < extent(g.workers); ++w) sum += of_warps[w * kTile];
    parts[(std::int64_t(part) * g.channels + first_channel + i / kTile) * g.taps.size +
          std::int64_t(r) * g.taps.step_a + std::int64_t(c) * g.taps.step_b] = sum;
  }
}

template <class T>
void launch_band_gradient(const WeightGradient& gradient, const Plan& plan,
                          const WeightGradientPointers& pointers, std::uintptr_t stream) {
  WeightGradient g = gradient;
  const BandGradient s = band_gradient_of(g, plan);
  const Planes& p = s.planes;
  g.workers = FastDivide(plan.workers);
  const std::int64_t rounds = std::int64_t(g.images) * p.row_blocks.divisor;
  g.rounds_per_split = ceil_div(rounds, plan.splits);
  const double blocks = double(p.channel_blocks.divisor) * s.tiles.divisor * plan.splits;
  if (blocks >= 0x1p31 || double(rounds) >= 0x1p31)
    throw_invalid_argument("depthwise_conv2d: more than 2^31 blocks or positions");
  const Launch how{dim3(static_cast<unsigned>(blocks)),
                   dim3(static_cast<unsigned>(32 * p.channels * plan.workers)),
                   static_cast<std::size_t>(p.bytes), stream};
  launch(band_taps(g) == 16 ? &band_weight_gradient_kernel<T, 16> : &band_weight_gradient_kernel<T, 32>, how,
         g, s, static_cast<const T*>(pointers.grad_output), static_cast<const T*>(pointers.input),
         static_cast<float*>(pointers.parts));
}

}  // namespace cnnkernels::depthwise_conv
