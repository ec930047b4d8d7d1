// Groups of few channels: a kernel of their own, without the implicit GEMM's tiles, which such groups fill to
// an eighth. A block takes a patch of the result's pixels and a bundle of neighbouring groups. The part of
// the image that the patch's windows touch, its region, comes to shared memory once, 16 bytes (a chunk) at a
// time, and so do the bundle's filters. Then a warp multiplies 16 pixels by up to 8 filters of one group per
// mma.sync, which reads windows straight out of the region: no product ever crosses from one group to
// another, where an infinity times zero would be no zero.
//
// forward and backward_input are the same sweep of a filter over an image: of the input, or of the error, by
// the filter turned, one sweep for each phase of the stride (phases.h).
#pragma once

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <optional>
#include <vector>

#include "../../common/index.h"
#include "../../common/shared_limits.h"
#include "../conv.h"
#include "../phases.h"
#include "../gemm.h"

namespace cnnkernels::conv::grouped {

inline constexpr int kThreads = 128, kWarps = kThreads / 32;
inline constexpr int kPixelTile = 16;                    // pixels of an instruction
inline constexpr int kPixelTiles = 4;                    // of a warp, which share the filters it reads
inline constexpr int kFilterTile = 8;                    // filters of an instruction
inline constexpr int kChunkBytes = 16;                   // of a copy and of a read
inline constexpr std::int64_t kSharedLimit = 96 * 1024;  // what every GPU has
static_assert(kSharedLimit <= kEveryBlockBytes);

// Elements from one image, row and column of a tensor to the next.
struct Steps {
  std::int64_t n, h, w;
};

// One axis of a sweep: result i meets tap t at origin + i step + t tap_step of the image. In the filter, tap
// t is number first_tap + t stride_of_taps, counted from the last one where it is turned.
struct SweepAxis {
  Index size, results, taps;
  Index origin, step, tap_step;
  Index first_tap, stride_of_taps;
};

struct Sweep {
  const void *image = nullptr, *filter = nullptr;
  void* result = nullptr;
  SweepAxis h, w;
  Steps image_steps, result_steps;
  FastDivide filter_k, filter_r, filter_s, filter_c;  // extents of a group's filters in memory
  Index images, groups;
  Index channels, filters;  // of a group: summed over, made
  bool turned;              // sums over k and makes c
  bool by_runs;             // is read in runs of 8 pixels
  std::uint8_t unused[6] = {};
};

inline std::int64_t elements_of_chunk(const Element& element) { return kChunkBytes / element.bytes(); }

// Neighbouring groups that share a chunk of the image.
inline Index groups_of_chunk(std::int64_t channels, const Element& element) {
  return static_cast<Index>(std::max<std::int64_t>(1, elements_of_chunk(element) / channels));
}

// The fewest groups whose channels and filters are whole chunks.
inline std::int64_t whole_groups(const ConvGeometry& g, const Element& element) {
  const std::int64_t chunk = elements_of_chunk(element);
  return std::lcm(chunk / std::gcd(chunk, g.c / g.groups), chunk / std::gcd(chunk, g.k / g.groups));
}

// What a block works on, and where it lies in shared memory; pitches and places in bytes.
struct Patch {
  Index groups;                      // of a bundle
  FastDivide bundles, across, down;  // bundles of the tensor, patches of an image
  Index count, workers;              // patches in all, blocks that share them for each bundle
  Index rows, pixels;                // of a patch
  FastDivide columns;
  FastDivide chunks, result_chunks;  // of a pixel of a bundle
  Index region_rows, pixel_pitch, row_pitch;
  FastDivide region_columns;
  Index unit_chunks;                       // a unit is one chunk that groups share, or a group of several
  Index steps, filter_rows, filter_pitch;  // of the reduction; of a unit's filters
  FastDivide pixel_groups, passes;         // of a patch; over the filters of a group
  Index zeros_at, table_at, filters_at, staging_at, staging_pitch;
  std::int64_t bytes;
};

// Blocks of an SM that registers are bounded for.
inline constexpr int blocks_of(Index share) { return share == 4 ? 3 : 4; }

// Chunks of the image that one step of the reduction takes: two runs of 8 pixels of ldmatrix, or one or two
// taps for each of a row's four lanes (grouped/kernel.cuh).
inline constexpr Index chunks_of_step(Index share) { return share == 1 ? 2 : share == 2 ? 4 : 8; }

inline std::int64_t region_extent(const SweepAxis& axis, std::int64_t results) {
  if (axis.taps == 0) return 0;
  return (results - 1) * axis.step + (axis.taps - std::int64_t(1)) * axis.tap_step + 1;
}

// `staged`: bytes of an element that waits to be stored.
inline Patch patch_of(const Sweep& s, const Element& element, Index groups, Index rows, Index columns,
                      int staged) {
  const auto chunk = static_cast<Index>(elements_of_chunk(element));
  const Index share = groups_of_chunk(s.channels, element);
  Patch p{};
  p.groups = groups;
  p.bundles = FastDivide(ceil_div(s.groups, groups));
  p.rows = rows;
  p.columns = FastDivide(columns);
  p.pixels = rows * columns;
  p.across = FastDivide(ceil_div(s.w.results, columns));
  p.down = FastDivide(ceil_div(s.h.results, rows));
  p.count = static_cast<Index>(std::int64_t(s.images) * p.across.divisor * p.down.divisor);
  p.workers = p.count;
  p.chunks = FastDivide(groups * s.channels / chunk);
  p.result_chunks = FastDivide(groups * s.filters / chunk);

  // Chunks of neighbouring pixels lie in different banks: a pixel takes an odd number of them. A run of 8
  // pixels goes on so in the next row. Where a row's four lanes read four taps, these are of two rows, which
  // lie 5 pixels apart modulo 8.
  const std::int64_t region_rows = region_extent(s.h, rows), region_columns = region_extent(s.w, columns);
  const std::int64_t apart = s.by_runs ? (columns % 8 == 0 ? region_columns : columns) : 5;
  const std::int64_t padding = (apart % 8 + 8 - region_columns % 8) % 8;
  p.region_rows = static_cast<Index>(region_rows);
  p.region_columns = FastDivide(std::max<std::int64_t>(region_columns, 1));
  p.pixel_pitch = static_cast<Index>(p.chunks.divisor | 1) * kChunkBytes;
  const std::int64_t row_pitch = (region_columns + padding) * p.pixel_pitch;
  p.row_pitch = static_cast<Index>(row_pitch);

  p.unit_chunks = std::max<Index>(1, s.channels / chunk);
  p.steps =
      static_cast<Index>(ceil_div(std::int64_t(s.h.taps) * s.w.taps * p.unit_chunks, chunks_of_step(share)));
  const Index filter_chunks = p.steps * chunks_of_step(share);
  p.filter_rows = static_cast<Index>(ceil_div(s.filters, kFilterTile) * kFilterTile);
  p.filter_pitch = (share == 1 ? filter_chunks | 1 : filter_chunks | 4) * kChunkBytes;
  p.pixel_groups = FastDivide(ceil_div(p.pixels, kPixelTile * kPixelTiles));
  p.passes = FastDivide(ceil_div(s.filters, share == 1 ? 2 * kFilterTile : kFilterTile));

  const auto aligned = [](std::int64_t bytes) { return ceil_div(bytes, kChunkBytes) * kChunkBytes; };
  const std::int64_t region = region_rows * row_pitch;
  const std::int64_t table = region + kChunkBytes, filters = table + aligned(filter_chunks * 4);
  const std::int64_t staging = filters + std::int64_t(groups / share) * p.filter_rows * p.filter_pitch;
  p.zeros_at = static_cast<Index>(region);
  p.table_at = static_cast<Index>(table);
  p.filters_at = static_cast<Index>(filters);
  p.staging_at = static_cast<Index>(staging);
  p.staging_pitch = (groups * s.filters + 8) * staged;
  p.bytes = staging + std::int64_t(p.pixels) * p.staging_pitch;
  return p;
}

// A patch of at most so many pixels that copies and multiplies the least for all of the result.
inline Patch best_patch(const Sweep& s, const Element& element, std::int64_t groups, const Tile& tile,
                        int staged) {
  Index best_rows = 1, best_columns = 1;
  double least = 0;
  for (Index wide = 1; wide <= std::min<Index>(s.w.results, tile.rows); ++wide) {
    const auto columns = static_cast<Index>(ceil_div(s.w.results, ceil_div(s.w.results, wide)));
    const Index tall = std::min<Index>(s.h.results, tile.rows / columns);
    const auto rows = static_cast<Index>(ceil_div(s.h.results, ceil_div(s.h.results, tall)));
    const double patches = static_cast<double>(ceil_div(s.w.results, columns)) * ceil_div(s.h.results, rows);
    const double copied = static_cast<double>(region_extent(s.h, rows)) * region_extent(s.w, columns);
    const double multiplied = ceil_div(rows * columns, kPixelTile * kPixelTiles) * kPixelTile * kPixelTiles;
    const double work = patches * (copied + multiplied);
    if (least > 0 && work >= least) continue;
    least = work;
    best_rows = rows;
    best_columns = columns;
  }
  return patch_of(s, element, static_cast<Index>(groups), best_rows, best_columns, staged);
}

// Groups of a bundle of about tile.columns channels.
inline std::int64_t bundle_of(const ConvGeometry& g, const Element& element, const Tile& tile) {
  const std::int64_t whole = whole_groups(g, element), widest = std::max(g.c, g.k) / g.groups;
  return std::max<std::int64_t>(1, tile.columns / widest / whole) * whole;
}

// The sweeps of forward or backward_input; null pointers serve to look at them.
std::vector<Sweep> sweeps(Direction direction, const Problem& problem, const void* image, const void* filter,
                          void* result);

// In: float16 or bfloat16.
template <class In>
void launch_sweep(const Sweep& sweep, const Patch& patch, const Epilogue& epilogue, std::uintptr_t stream);

// The plan by which this kernel serves, if it is to: because `asked` names it, or nothing was asked for and
// it can. Pointers are those of the problem's tensors. std::invalid_argument where it was asked for and
// cannot.
std::optional<Plan> plan_for(Direction direction, const Problem& problem, const Plan* asked,
                             std::initializer_list<const void*> pointers = {});

// forward and backward_input.
void sweep_all(Direction direction, const Problem& problem, const Plan& plan, const void* image,
               const void* filter, const Epilogue& epilogue, void* result, std::uintptr_t stream);

}  // namespace cnnkernels::conv::grouped
