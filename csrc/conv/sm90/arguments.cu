// Geometry into tensor maps.
#include "arguments.h"

#include <algorithm>

#include "../../gemm/sm90/maps.h"
#include "limits.h"

namespace cnnkernels::conv::sm90 {

namespace {

MapElement map_element(const Problem& problem) {
  return problem.dtype == DType::float16    ? MapElement::float16
         : problem.dtype == DType::bfloat16 ? MapElement::bfloat16
                                            : MapElement::tf32;  // rounded by the copy
}

std::int64_t bytes_of(const Problem& problem) { return Element{problem.dtype, problem.tf32}.bytes(); }
int row_elements(std::int64_t bytes) { return static_cast<int>(kRowBytes / bytes); }

Image image(const Problem& problem, const void* data, std::int64_t n, std::int64_t h, std::int64_t w,
            std::int64_t c) {
  return {map_element(problem), data, n, h, w, c, c * bytes_of(problem)};
}
Image input_image(const Problem& problem, const void* input) {
  const ConvGeometry& g = problem.geometry;
  return image(problem, input, g.n, g.h, g.w, g.c);
}
TensorMap filters(const Problem& problem, const void* weight, int channels, int filters, Swizzle swizzle) {
  const ConvGeometry& g = problem.geometry;
  return filter_map(map_element(problem), g, weight, g.r * g.s * (g.c / g.groups) * bytes_of(problem),
                    channels, filters, swizzle);
}

// An image [pixel][group][channel] in blocks of 64 pixels by 128 bytes.
TensorMap pixel_map(const Problem& problem, MapElement element, const void* image, std::int64_t channels,
                    std::int64_t pixels) {
  const std::int64_t e = bytes_of(problem), groups = problem.geometry.groups;
  return make_tensor_map(TileBox{.element = element,
                                 .rank = 3,
                                 .address = image,
                                 .size = {channels, groups, pixels},
                                 .stride = {0, channels * e, groups * channels * e},
                                 .box = {row_elements(e), 1, kBlock},
                                 .swizzle = kSwizzle});
}
MapElement stored_element(const Problem& problem) {
  return problem.dtype == DType::float32 ? MapElement::float32 : map_element(problem);
}

Taps taps_of(const PhaseAxis& axis) {
  const auto small = [](std::int64_t value) { return static_cast<std::int16_t>(value); };
  const std::int64_t farthest = -axis.step * (axis.taps - 1);
  return {small(axis.taps), small(farthest), small(axis.step), small(axis.first_tap), small(axis.tap_step)};
}

}  // namespace

ForwardArguments forward_arguments(const Problem& problem, const Tile& tile, const void* input,
                                   const void* weight, const Epilogue& epilogue, void* output) {
  const ConvGeometry& g = problem.geometry;
  const std::int64_t e = bytes_of(problem), columns = g.k / g.groups, channels = g.c / g.groups;
  const int span = span_of(Direction::forward, problem), run = static_cast<int>(span / e);
  ForwardArguments a;
  set_geometry(a, g);
  a.windows[0] = input_map(input_image(problem, input), g, span, tile.rows);
  a.other = filters(problem, weight, run, tile.columns / tile.cluster, swizzle_of(span));
  a.result = pixel_map(problem, stored_element(problem), output, columns, g.n * g.p * g.q);
  a.phase[0].row_tiles = row_tiles(a.phase[0].pixels, tile);
  a.columns = static_cast<int>(columns);
  a.span = span;
  a.chunks = static_cast<int>(ceil_div(channels, run));
  a.epilogue = epilogue;
  a.data = output;
  a.result_strides.q = g.k;
  number_tiles(a, tile, g.groups, columns);
  return a;
}

std::vector<BackwardInputArguments> backward_input_arguments(const Problem& problem, const Tile& tile,
                                                             const void* grad_output, const void* weight,
                                                             const Epilogue& epilogue, void* grad_input) {
  const ConvGeometry& g = problem.geometry;
  const std::int64_t e = bytes_of(problem), sums = g.k / g.groups, channels = g.c / g.groups;
  struct Axes {
    PhaseAxis h, w;
    std::int64_t taps() const { return h.taps * w.taps; }
  };
  std::vector<Axes> phases;
  for (std::int64_t h = 0; h < std::min(g.stride_h, g.h); ++h) {
    for (std::int64_t w = 0; w < std::min(g.stride_w, g.w); ++w) {
      phases.push_back({phase_axis(h, g.h, g.r, g.stride_h, g.pad_h, g.dilation_h),
                        phase_axis(w, g.w, g.s, g.stride_w, g.pad_w, g.dilation_w)});
    }
  }
  // The longest sums begin first, so that none is left over at the end.
  std::stable_sort(phases.begin(), phases.end(), [](auto& a, auto& b) { return a.taps() > b.taps(); });

  const int span = span_of(Direction::backward_input, problem), run = static_cast<int>(span / e);
  BackwardInputArguments a;
  a.other = filters(problem, weight, kBlock, run, kSwizzle);
  a.columns = static_cast<int>(channels);
  a.span = span;
  a.chunks = static_cast<int>(ceil_div(sums, run));
  a.group_channels = static_cast<int>(sums);
  a.groups = FastDivide(g.groups);
  a.images = static_cast<int>(g.n);
  a.filter_width = static_cast<int>(g.s);
  a.pointwise = pointwise(g);
  a.epilogue = epilogue;
  a.data = grad_input;
  a.result_strides = {g.stride_w * g.c, g.stride_h * g.w * g.c, g.h * g.w * g.c};
  a.store_by_tma = phases.size() == 1;
  a.result = pixel_map(problem, stored_element(problem), grad_input, channels, g.n * g.h * g.w);

  std::vector<BackwardInputArguments> launches;
  for (std::size_t first = 0; first < phases.size(); first += kMostPhases) {
    a.phases = static_cast<int>(std::min<std::size_t>(kMostPhases, phases.size() - first));
    for (int i = 0; i < a.phases; ++i) {
      const auto& [h, w] = phases[first + i];
      Phase& phase = a.phase[i] = pixels_of(g.n, h.pixels, w.pixels);
      phase.row_tiles = row_tiles(phase.pixels, tile);
      phase.first = h.first * g.w * g.c + w.first * g.c;
      phase.r = taps_of(h);
      phase.s = taps_of(w);
      if (h.taps == 0 || w.taps == 0) {
        phase.r.count = phase.s.count = 0;
        continue;
      }
      const Corners rows = corners_of_error(h, g.p), columns = corners_of_error(w, g.q);
      phase.h = static_cast<int>(rows.lower);
      phase.w = static_cast<int>(columns.lower);
      a.windows[i] = window_map(image(problem, grad_output, g.n, g.p, g.q, g.k), a.pointwise, rows, columns,
                                1, 1, span, tile.rows);
    }
    number_tiles(a, tile, g.groups, channels);
    launches.push_back(a);
  }
  return launches;
}

BackwardWeightArguments backward_weight_arguments(const Problem& problem, const Tile& tile, int parts,
                                                  const void* grad_output, const void* input, void* result) {
  const ConvGeometry& g = problem.geometry;
  const std::int64_t filters = g.k / g.groups, channels = g.c / g.groups, taps = g.r * g.s;
  const MapElement element = parts > 1 ? MapElement::float32 : stored_element(problem);
  const std::int64_t e = element_bytes(element);
  BackwardWeightArguments a;
  set_geometry(a, g);
  a.windows[0] = input_map(input_image(problem, input), g, kRowBytes, kBlock);
  a.other = pixel_map(problem, map_element(problem), grad_output, filters, g.n * g.p * g.q);
  a.result =
      make_tensor_map(TileBox{.element = element,
                              .rank = 5,
                              .address = result,
                              .size = {channels, taps, filters, g.groups, parts},
                              .stride = {0, channels * e, taps * channels * e, filters * taps * channels * e,
                                         g.groups * filters * taps * channels * e},
                              .box = {row_elements(e), 1, kBlock, 1, 1},
                              .swizzle = kSwizzle});
  a.phase[0].row_tiles = row_tiles(filters, tile);
  a.rows = static_cast<int>(filters);
  a.columns = static_cast<int>(channels);
  a.chunks = static_cast<int>(ceil_div(channels, kBlock));
  a.steps = static_cast<int>(ceil_div(a.phase[0].pixels, kBlock));
  a.in_parts = parts > 1;
  a.steps_per_part = static_cast<int>(ceil_div(a.steps, parts));
  number_tiles(a, tile, g.groups * parts, taps * a.chunks * kBlock);
  return a;
}

}  // namespace cnnkernels::conv::sm90
