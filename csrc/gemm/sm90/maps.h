// Geometry into the tensor maps and numbers of a TileSchedule, on the host.
#pragma once

#include <stdexcept>
#include <string>

#include "tile_schedule.h"

namespace cnnkernels::gemm::sm90 {

inline int narrow_size(std::int64_t value, const char* what) {
  if (value >= std::int64_t(1) << 31) throw std::invalid_argument(std::string("too many ") + what);
  return static_cast<int>(value);
}

// The pixels of an image [n][h][w][c], dense but for what lies between one pixel and the next.
struct Image {
  MapElement element;
  const void* data;
  std::int64_t n, h, w, c;
  std::int64_t pixel_bytes;
};

// Columns of `pixels` windows, a run of `span` bytes of channels each.
inline TensorMap window_map(const Image& x, bool pointwise, const Corners& rows, const Corners& columns,
                            std::int64_t stride_h, std::int64_t stride_w, int span, int pixels) {
  const int width = span / element_bytes(x.element);
  if (pointwise) {
    return make_tensor_map(TileBox{.element = x.element,
                                   .rank = 2,
                                   .address = x.data,
                                   .size = {x.c, x.n * x.h * x.w},
                                   .stride = {0, x.pixel_bytes},
                                   .box = {width, pixels},
                                   .swizzle = swizzle_of(span)});
  }
  return make_tensor_map(
      Im2colBox{.element = x.element,
                .rank = 4,
                .address = x.data,
                .size = {x.c, x.w, x.h, x.n},
                .stride = {0, x.pixel_bytes, x.w * x.pixel_bytes, x.h * x.w * x.pixel_bytes},
                .lower = {static_cast<int>(columns.lower), static_cast<int>(rows.lower)},
                .upper = {static_cast<int>(columns.upper), static_cast<int>(rows.upper)},
                .channels = width,
                .pixels = pixels,
                .step = {1, static_cast<int>(stride_w), static_cast<int>(stride_h), 1},
                .swizzle = swizzle_of(span)});
}
// The windows of the input that a forward convolution, and its filter's gradient, walk over.
inline TensorMap input_map(const Image& x, const ConvGeometry& g, int span, int pixels) {
  return window_map(x, pointwise(g), corners_of_rows(g), corners_of_columns(g), g.stride_h, g.stride_w, span,
                    pixels);
}

// The filter [k][tap][c] by groups: a block ends where its group does. Taps of a filter are dense, filters
// `filter_bytes` apart.
inline TensorMap filter_map(MapElement element, const ConvGeometry& g, const void* weight,
                            std::int64_t filter_bytes, int channels, int filters, Swizzle swizzle) {
  const std::int64_t c = g.c / g.groups, k = g.k / g.groups;
  return make_tensor_map(TileBox{.element = element,
                                 .rank = 4,
                                 .address = weight,
                                 .size = {c, g.r * g.s, k, g.groups},
                                 .stride = {0, g.r * g.s == 1 ? filter_bytes : c * element_bytes(element),
                                            filter_bytes, k * filter_bytes},
                                 .box = {channels, 1, filters, 1},
                                 .swizzle = swizzle});
}

inline Phase pixels_of(std::int64_t n, std::int64_t h, std::int64_t w) {
  Phase phase;
  phase.pixels = static_cast<int>(n * h * w);
  phase.width = FastDivide(w);
  phase.height = FastDivide(h);
  return phase;
}
inline Phase input_windows(const ConvGeometry& g) {
  Phase phase = pixels_of(g.n, g.p, g.q);
  phase.w = -static_cast<int>(g.pad_w);
  phase.h = -static_cast<int>(g.pad_h);
  const auto small = [](std::int64_t value) { return static_cast<std::int16_t>(value); };
  phase.s = {small(g.s), 0, small(g.dilation_w), 0, 1};
  phase.r = {small(g.r), 0, small(g.dilation_h), 0, 1};
  return phase;
}

// What a walk over the windows of an input takes of the geometry, whatever is made of them.
template <class A>
void set_geometry(A& a, const ConvGeometry& g) {
  a.phase[0] = input_windows(g);
  a.group_channels = static_cast<int>(g.c / g.groups);
  a.groups = FastDivide(g.groups);
  a.stride_w = static_cast<int>(g.stride_w);
  a.stride_h = static_cast<int>(g.stride_h);
  a.images = static_cast<int>(g.n);
  a.filter_width = static_cast<int>(g.s);
  a.pointwise = pointwise(g);
}

// Row tiles of an extent; those of the blocks of a cluster count as one, the last ones may lie outside.
inline std::int32_t row_tiles(std::int64_t rows, const auto& tile) {
  return static_cast<std::int32_t>(ceil_div(rows, std::int64_t(tile.rows) * tile.cluster));
}

// Numbers the tiles of the first `phases` phases, each `slices` times: for every group (and part of the sum).
template <class A>
void number_tiles(A& a, const auto& tile, std::int64_t slices, std::int64_t columns) {
  std::int64_t tiles = 0;
  a.column_tiles = static_cast<int>(ceil_div(columns, tile.columns));
  a.band_tiles = FastDivide(std::int64_t(kBand) * a.column_tiles);
  for (int i = 0; i < a.phases; ++i) {
    Phase& phase = a.phase[i];
    phase.first_tile = static_cast<int>(tiles);
    const std::int64_t slice = std::int64_t(phase.row_tiles) * a.column_tiles;
    phase.slice_tiles = FastDivide(narrow_size(slice, "tiles of output"));
    tiles = narrow_size(tiles + slices * slice, "tiles of output");
  }
  a.tiles = static_cast<int>(tiles);
}

}  // namespace cnnkernels::gemm::sm90
