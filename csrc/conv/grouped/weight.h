// backward_weight for groups of few channels: a patch's region and its error in shared memory, as in
// grouped.h, are turned on their way to the registers, and the reduction runs over the patch's pixels.
//
// A unit is the fewest groups whose channels and filters are whole runs of 8. An instruction multiplies two
// runs of the input, each at one tap, by one run of the error: where several groups share a run, products
// across groups are made too, into sums of their own, which nobody stores.
#pragma once

#include "grouped.h"

namespace cnnkernels::conv::grouped {

inline constexpr int kRowTiles = 5;     // of 16 rows that a warp sums: nine taps of 8 channels
inline constexpr int kColumnTiles = 2;  // of 8 filters

// What a block works on beside its patches, and where it lies in shared memory.
struct Gradient {
  const void* error = nullptr;
  void* sums = nullptr;  // each part's, or the filter's gradient where there is one
  Index unit_groups;
  Index input_runs, error_runs;  // of 8 channels, of 8 filters of a unit
  Index row_tiles;               // of a unit
  FastDivide row_passes, column_passes;
  FastDivide sets;       // of kWarps items: blocks that share the patches of a bundle
  Index parts, of_part;  // patches of a part
  Index pixels;          // of a patch, a multiple of 16
  Index places_at, error_at, error_pitch;
  bool in_parts = false;  // sums are fp32
  std::uint8_t unused[3] = {};
  std::int64_t bytes;
};

inline Gradient gradient_of(const Patch& patch, const Problem& problem, int parts) {
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const std::int64_t chunk = elements_of_chunk(element), unit = whole_groups(g, element);
  Gradient made{};
  made.unit_groups = static_cast<Index>(unit);
  made.input_runs = static_cast<Index>(unit * (g.c / g.groups) / chunk);
  made.error_runs = static_cast<Index>(unit * (g.k / g.groups) / chunk);
  made.row_tiles = static_cast<Index>(ceil_div(g.r * g.s * made.input_runs, 2));
  made.row_passes = FastDivide(ceil_div(made.row_tiles, kRowTiles));
  made.column_passes = FastDivide(ceil_div(made.error_runs, kColumnTiles));
  const std::int64_t items = patch.groups / unit * made.row_passes.divisor * made.column_passes.divisor;
  made.sets = FastDivide(ceil_div(items, kWarps));
  made.parts = parts;
  made.of_part = static_cast<Index>(ceil_div(patch.count, parts));
  made.pixels = static_cast<Index>(ceil_div(patch.pixels, kPixelTile) * kPixelTile);
  made.places_at = patch.zeros_at + kChunkBytes;
  made.error_at = made.places_at + made.pixels * static_cast<Index>(sizeof(Index));
  made.error_pitch = static_cast<Index>(patch.result_chunks.divisor | 1) * kChunkBytes;
  made.bytes = made.error_at + std::int64_t(made.pixels) * made.error_pitch;
  return made;
}

// In: float16 or bfloat16.
template <class In>
void launch_gradient(const Sweep& sweep, const Patch& patch, const Gradient& gradient, std::uintptr_t stream);

// workspace: plan.splits times the filter in fp32, where there is more than one.
void backward_weight(const Problem& problem, const Plan& plan, const void* grad_output, const void* input,
                     void* grad_weight, void* workspace, std::uintptr_t stream);

}  // namespace cnnkernels::conv::grouped
