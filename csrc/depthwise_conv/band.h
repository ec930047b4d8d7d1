// Large filters of 16-bit types on tensor cores. A row of the filter over eight results beside each other is
// a product with a band (Toeplitz) matrix B[i][j] = w[r, i - j], the same for every eight results:
//
//   y[p, q0 + j] += sum over i of x[p + r, q0 + i] B[i][j]        16 rows x 8 columns at once, for each r
//
// Rows of one channel lie below each other, of several images if they are short. S taps need S + 7 of the 16
// K columns that the instructions multiply: 65 % of their products are useful for S = 31.
//
// The gradient of w is of the same kind: with x and the error of one image row at a time,
//
//   dw[r, s] += sum over i of x[p + r, i] D[i][s]                 D[i][s] = dy[p, i - s]
//
// a product of 16 filter rows and 8 filter columns with a band of the error. band.cuh has what both share.
#pragma once

#include "slab.h"
#include "weight_gradient.h"

namespace cnnkernels::depthwise_conv {

inline constexpr std::int64_t kBandBytes =
    96 * 1024;  // of shared memory, what every GPU has: two blocks to an SM
static_assert(kBandBytes <= kEveryBlockBytes);
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kRowTile = 32;    // rows of results of a warp: two instructions
inline constexpr int kColumnTile = 8;  // columns of an instruction
inline constexpr int kBandVector = 8;  // elements of 16 bytes

// Steps of 16 columns of the source that 8 results of `taps` taps reach.
constexpr int band_steps(std::int64_t taps) { return static_cast<int>((taps + 7 + 15) / 16); }
inline constexpr int kBandSteps[] = {2, 3};        // compiled: 10 to 41 taps
inline constexpr int kBandTiles[] = {1, 2, 4, 7};  // compiled: column tiles of a warp

// Rows of 16-byte vectors, an odd number of them: eight rows beside each other lie in different banks.
inline std::int64_t band_pitch(std::int64_t columns) {
  return (ceil_div(columns, kBandVector) | 1) * kBandVector;
}
// A row of `taps` elements as a band is read: zeros around them; twice, one element apart (band.cuh).
inline std::int64_t band_row(int steps) { return 2 * (16 * steps + 8); }

// Planes of the source in shared memory, with the zeros around them that the padding stands for.
struct Planes {
  Index channels, images, rows;  // of a block; rows of the result, or of the error
  Index all_channels;
  Index plane_rows, pitch;         // of a plane
  FastDivide by_rows;              // rows
  FastDivide width, result_width;  // of the source, of the result or the error
  FastDivide channel_blocks, row_blocks;
  Index bands_at, flags_at;  // bytes into shared memory, after the planes
  std::int32_t unused = 0;
  std::int64_t bytes;
};

// forward and backward_input.
struct Band {
  Planes planes;
  FastDivide column_tiles, row_tiles;  // of a block: a warp takes one of either, of one channel
  Region result;
  Index result_image;  // elements from one image to the next, where the planes were
  std::int32_t unused = 0;
};

inline Band band_of(const Correlation& c, const Plan& plan) {
  Band s{};
  Planes& p = s.planes;
  const int steps = band_steps(c.b.taps);
  p.channels = plan.lanes;
  p.images = plan.images;
  p.rows = plan.strips;
  p.all_channels = static_cast<Index>(c.channels.divisor);
  const std::int64_t columns = ceil_div(c.b.result_size, kColumnTile * plan.tiles);
  const std::int64_t pitch = band_pitch((columns * plan.tiles + 2 * steps) * kColumnTile);
  p.plane_rows = static_cast<Index>(p.rows + c.a.taps - 1);
  p.pitch = static_cast<Index>(pitch);
  p.by_rows = FastDivide(p.rows);
  p.width = FastDivide(c.b.source_size);
  p.result_width = FastDivide(c.b.result_size);
  p.channel_blocks = FastDivide(ceil_div(p.all_channels, p.channels));
  p.row_blocks = FastDivide(ceil_div(c.a.result_size, p.rows));
  s.column_tiles = FastDivide(columns);
  s.row_tiles = FastDivide(ceil_div(std::int64_t(p.images) * p.rows, kRowTile));

  const Extents result{p.all_channels, c.a.result_size, c.b.result_size};
  const Extents made{p.channels, least(p.rows, result.rows), result.columns};
  s.result = region(c.result, c.channels_last, c.images, result, made, 2);
  const std::int64_t image = ceil_div(s.result.elements, kBandVector) * kBandVector;
  s.result_image = static_cast<Index>(image);
  const std::int64_t planes = std::int64_t(p.channels) * p.images * p.plane_rows * pitch;
  const std::int64_t shared = larger(planes, p.images * image) * 2;
  const std::int64_t bands = p.channels * std::int64_t(c.a.taps) * band_row(steps) * 2;
  p.bands_at = static_cast<Index>(shared);
  p.flags_at = static_cast<Index>(shared + bands);
  p.bytes = shared + bands + ceil_div(std::int64_t(p.channels) * p.images * 4, kVectorBytes) * kVectorBytes;
  return s;
}

// backward_weight: a block's warps share the rows of each of its channels.
struct BandGradient {
  Planes planes;
  Index steps;         // of 16 columns of the source that a row of the error reaches, with 8 taps
  FastDivide tiles;    // of the filter, one a block
  FastDivide tiles_b;  // of those, along a row
  std::int32_t unused = 0;
};

// Taps that a warp sums: 16 x 16, or 32 x 32 of larger filters.
inline int band_taps(const WeightGradient& g) { return g.a.taps <= 16 && g.b.taps <= 16 ? 16 : 32; }

inline BandGradient band_gradient_of(const WeightGradient& g, const Plan& plan) {
  BandGradient s{};
  Planes& p = s.planes;
  const std::int64_t taps = band_taps(g), tiles_a = ceil_div(g.a.taps, taps),
                     tiles_b = ceil_div(g.b.taps, taps);
  s.steps = band_steps(g.b.result_size);
  s.tiles = FastDivide(tiles_a * tiles_b);
  s.tiles_b = FastDivide(tiles_b);
  p.channels = plan.lanes;
  p.images = 1;
  p.rows = plan.strips;
  p.all_channels = g.channels;
  p.plane_rows = static_cast<Index>(p.rows + tiles_a * taps - 1);
  const std::int64_t pitch = band_pitch(tiles_b * taps + 16 * s.steps);
  p.pitch = static_cast<Index>(pitch);
  p.width = FastDivide(g.b.source_size);
  p.result_width = FastDivide(g.b.result_size);
  p.channel_blocks = FastDivide(ceil_div(p.all_channels, p.channels));
  p.row_blocks = FastDivide(ceil_div(g.a.result_size, p.rows));
  const std::int64_t planes = p.channels * p.plane_rows * pitch * 2;
  const std::int64_t bands = p.channels * p.rows * band_row(s.steps) * 2;
  const std::int64_t sums = std::int64_t(p.channels) * plan.workers * taps * taps * 4;
  const std::int64_t shared = larger(planes + bands, sums);
  p.bands_at = static_cast<Index>(planes);
  p.flags_at = static_cast<Index>(shared);
  p.bytes = shared + ceil_div(std::int64_t(p.channels) * 4, kVectorBytes) * kVectorBytes;
  return s;
}

template <class T>
void launch_band(const Correlation& correlation, const Plan& plan, const CorrelationPointers& pointers,
                 std::uintptr_t stream);

template <class T>
void launch_band_gradient(const WeightGradient& gradient, const Plan& plan,
                          const WeightGradientPointers& pointers, std::uintptr_t stream);

}  // namespace cnnkernels::depthwise_conv
