// forward and backward_input of large filters on tensor cores (band.h).
#pragma once

#include "band.cuh"

namespace cnnkernels::depthwise_conv {

// A warp's sums: kRowTile rows by kTiles tiles of columns.
template <class T, int kSteps, int kTiles>
struct BandTile {
  static constexpr int kInstructions = kRowTile / 16;
  float sum[kInstructions][kTiles][1][4];

  CNN_DEVICE void fill(float start) {
#pragma unroll
    for (int t = 0; t < kInstructions; ++t) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int v = 0; v < 4; ++v) sum[t][n][0][v] = start;
      }
    }
  }

  // One row of the filter: `rows` are the lane's rows of the plane, `band` its place in the filter's row.
  CNN_DEVICE void add(const T* const (&rows)[kInstructions], const T* band) {
    constexpr int kPairs = (kTiles - 1 + 2 * kSteps + 1) / 2;  // of blocks of 8 columns
    std::uint32_t b[kSteps][1][2];
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      b[k][0][0] = band_word(band + 16 * k);
      b[k][0][1] = band_word(band + 16 * k + 8);
    }
#pragma unroll
    for (int t = 0; t < kInstructions; ++t) {
      std::uint32_t block[kPairs][4];
#pragma unroll
      for (int j = 0; j < kPairs; ++j) ldmatrix_x4(block[j], rows[t] + 16 * j);
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        std::uint32_t a[kTiles][4];
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int v = 0; v < 4; ++v) {
            const int half = 2 * (n + 2 * k) + v;  // blocks n + 2 k and the next, two registers each
            a[n][v] = block[half / 4][half % 4];
          }
        }
        mma_tile<T, kTiles, 1>(sum[t], a, b[k]);
      }
    }
  }

  // Calls of(row, column, sum) for the lane's results.
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

// A result by its definition, from global memory.
template <class T>
CNN_DEVICE float correlate_exactly(const Correlation& c, const T* __restrict__ plane,
                                   const T* __restrict__ filter, Index row, Index column, float sum) {
#pragma unroll 1
  for (Index r = 0; r < c.a.taps; ++r) {
    const Index i = c.a.source(row, r);
#pragma unroll 1
    for (Index s = 0; s < c.b.taps; ++s) {
      const Index j = c.b.source(column, s);
      const float x = i < 0 || j < 0 ? 0 : widen(plane[i * c.source.a + j * c.source.b]);
      sum = multiply_add(x, widen(filter[std::int64_t(r) * c.taps.step_a + std::int64_t(s) * c.taps.step_b]),
                         sum);
    }
  }
  return sum;
}

template <class T, int kSteps, int kTiles>
CNN_KERNEL(kThreads, 1)
band_kernel(const Correlation c, const Band s, const T* __restrict__ source, const T* __restrict__ filter,
            const T* __restrict__ bias, T* __restrict__ result) {
  using Tile = BandTile<T, kSteps, kTiles>;
  constexpr Index kHalf = 16 * kSteps + 8;
  const Planes& p = s.planes;
  CNN_DYNAMIC_SHARED(shared);
  T* const planes = reinterpret_cast<T*>(shared);
  T* const bands = reinterpret_cast<T*>(shared + p.bands_at);      // [channel][row of the filter][two copies]
  int* const flags = reinterpret_cast<int*>(shared + p.flags_at);  // [channel][image]: not all is finite

  Index image_block = static_cast<Index>(blockIdx.x);
  const Index first_channel = split(image_block, p.channel_blocks) * p.channels;
  const Index row_begin = split(image_block, p.row_blocks) * p.rows;
  const Index channels = min(p.channels, p.all_channels - first_channel);
  const Index row_end = min(row_begin + p.rows, c.a.result_size);
  const Index first_image = image_block * p.images, images = min(p.images, c.images - first_image);
  const Index plane = p.plane_rows * p.pitch;

  clear_shared(shared, static_cast<Index>(p.bytes));
  __syncthreads();
  const Index begin = max(row_begin - c.a.pad, Index(0));
  const Index end = min(row_end - c.a.pad + c.a.taps - 1, c.a.source_size);
  const std::int64_t total = c.images * c.source.image;
  for (Index image = 0; image < images && begin < end; ++image) {
    for_each_element(source, c.source, c.channels_last, total, p.width, first_image + image, first_channel,
                     channels, begin, end, [&](Index channel, Index row, Index column, T value) {
                       const Index i = row - row_begin + c.a.pad, j = column + c.b.pad;
                       if (j < 0 || j >= p.pitch) return;
                       planes[(channel * p.images + image) * plane + i * p.pitch + j] = value;
                       if (!is_finite(value)) atomicMax(&flags[channel * p.images + image], 1);
                     });
  }
  for (Index i = static_cast<Index>(threadIdx.x); i < channels * c.a.taps * c.b.taps;
       i += static_cast<Index>(blockDim.x)) {
    Index row = i;
    const Index column = split(row, c.batch.taps);  // row: of all channels' filters
    Index channel = row;
    const Index r = split(channel, c.batch.slots);
    const T value = filter[(first_channel + channel) * c.taps.size + c.taps.origin +
                           std::int64_t(r) * c.taps.step_a + std::int64_t(column) * c.taps.step_b];
    put_band(bands + row * 2 * kHalf, kHalf, column, value);
    if (!is_finite(value))
      for (Index image = 0; image < images; ++image) atomicMax(&flags[channel * p.images + image], 1);
  }
  __syncthreads();

  const Index lane = static_cast<Index>(threadIdx.x) % 32;
  Index channel = static_cast<Index>(threadIdx.x) / 32;
  const Index left = split(channel, s.column_tiles) * kTiles * kColumnTile;
  const Index top = split(channel, s.row_tiles) * kRowTile;
  const bool active = channel < channels;
  Tile tile;
  tile.fill(active && bias != nullptr ? widen(bias[first_channel + channel]) : 0.0f);
  if (active) {
    // Rows of several images lie below each other; those behind the last read the first instead.
    const T* rows[Tile::kInstructions];
#pragma unroll
    for (int t = 0; t < Tile::kInstructions; ++t) {
      Index image = top + 16 * t + lane_row(lane);
      Index row = split(image, p.by_rows);
      if (image >= p.images) image = row = 0;
      rows[t] = planes + (channel * p.images + image) * plane + row * p.pitch + left + lane_column(lane);
    }
    const T* band = bands + channel * c.a.taps * 2 * kHalf + band_place(lane, kHalf);
#pragma unroll 1
    for (Index r = 0; r < c.a.taps; ++r, band += 2 * kHalf) {
      tile.add(rows, band);
#pragma unroll
      for (int t = 0; t < Tile::kInstructions; ++t) rows[t] += p.pitch;
    }
  }
  __syncthreads();  // results go where the planes were

  const auto box = [&](Index image) {
    return Box{
        (first_image + image) * c.result.image + first_channel * c.result.channel + row_begin * c.result.a,
        channels, row_end - row_begin, c.b.result_size};
  };
  const auto place = [&](Index channel, Index image, Index row, Index column) -> T& {
    return planes[image * s.result_image + head_of(result, box(image).begin) + channel * s.result.pitch_unit +
                  row * s.result.pitch_a + column * s.result.pitch_b];
  };
  if (active) {
    tile.each(lane, [&](Index row, Index column, float sum) {
      Index image = top + row;
      row = split(image, p.by_rows);
      column += left;
      if (image >= images || row >= row_end - row_begin || column >= c.b.result_size) return;
      place(channel, image, row, column) = narrow<T>(sum);
    });
  }
  __syncthreads();
  for (Index i = 0; i < channels * images; ++i) {
    const Index channel = i / images, image = i % images;
    if (flags[channel * p.images + image] == 0) continue;
    const std::int64_t f = (first_channel + channel) * c.taps.size + c.taps.origin;
    const T* const from =
        source + (first_image + image) * c.source.image + (first_channel + channel) * c.source.channel;
    const float start = bias != nullptr ? widen(bias[first_channel + channel]) : 0.0f;
    for (Index j = static_cast<Index>(threadIdx.x); j < (row_end - row_begin) * c.b.result_size;
         j += static_cast<Index>(blockDim.x)) {
      Index row = j;
      const Index column = split(row, p.result_width);
      place(channel, image, row, column) =
          narrow<T>(correlate_exactly(c, from, filter + f, row_begin + row, column, start));
    }
  }
  __syncthreads();
  for (Index image = 0; image < images; ++image)
    copy_out(s.result, box(image), result, planes + image * s.result_image);
}

// The kernels that select.h's can_band promises.
template <class T, int kSteps>
auto band_kernel_for(int tiles) {
  return tiles == 1   ? &band_kernel<T, kSteps, 1>
         : tiles == 2 ? &band_kernel<T, kSteps, 2>
         : tiles == 4 ? &band_kernel<T, kSteps, 4>
                      : &band_kernel<T, kSteps, 7>;
}

template <class T>
void launch_band(const Correlation& correlation, const Plan& plan, const CorrelationPointers& pointers,
                 std::uintptr_t stream) {
  Correlation c = correlation;
  c.batch = {0, FastDivide(c.b.taps), FastDivide(c.a.taps)};
  const Band s = band_of(c, plan);
  const Planes& p = s.planes;
  const double blocks =
      double(p.channel_blocks.divisor) * p.row_blocks.divisor * double(ceil_div(c.images, p.images));
  if (blocks >= 0x1p31) throw_invalid_argument("depthwise_conv2d: more than 2^31 blocks");
  const unsigned warps = s.column_tiles.divisor * s.row_tiles.divisor * static_cast<unsigned>(p.channels);
  const Launch how{dim3(static_cast<unsigned>(blocks)), dim3(32 * warps), static_cast<std::size_t>(p.bytes),
                   stream};
  launch(band_steps(c.b.taps) == 2 ? band_kernel_for<T, 2>(plan.tiles) : band_kernel_for<T, 3>(plan.tiles),
         how, c, s, static_cast<const T*>(pointers.source), static_cast<const T*>(pointers.filter),
         static_cast<const T*>(pointers.bias), static_cast<T*>(pointers.result));
}

}  // namespace cnnkernels::depthwise_conv
