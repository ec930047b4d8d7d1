// Which tile, reader and patch serve a problem: a pure function of it and of the GPU, on the host.
// None of them changes a bit of the result: each sum's order is the taps', and then the channels'.
#pragma once

#include <algorithm>
#include <stdexcept>

#include "../common/giving_way.h"
#include "../common/gpu.h"
#include "../common/types.h"
#include "describe.h"
#include "launchers.h"

namespace cnnkernels::depthwise_separable_conv {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline int bytes_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
inline int chunk_of(const Problem& problem) { return kChunkBytes / bytes_of(problem.dtype); }

inline bool on_tensor_cores(const Problem& problem) {
  return problem.dtype != DType::float64 && (problem.dtype != DType::float32 || problem.tf32);
}

inline bool has_kernel(int tile, Reader reader, const Problem& problem, bool wgmma = false) {
  const int bytes = bytes_of(problem.dtype);
  return wgmma ? sm90_kernel_exists(bytes, tile, reader)
               : kernel_exists(on_tensor_cores(problem), bytes, tile, reader);
}

inline bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kChunkBytes == 0;
}

// Null pointers count as aligned.
inline bool can_read(Reader reader, const Problem& problem, const Tensors& at) {
  if (reader == Reader::elements) return true;
  const ConvGeometry& g = problem.geometry;
  if (problem.layout != Layout::nhwc || g.k != g.c || g.c % chunk_of(problem) != 0 || !aligned(at.input) ||
      !aligned(at.intermediate))
    return false;
  return reader == Reader::vectors ||
         (g.s == 3 && g.stride_w == 1 && g.dilation_w == 1 && g.r * g.s <= kTaps);
}

inline Reader reader_for(const Problem& problem, const Tensors& at) {
  for (const Reader reader : {Reader::rows_of_three, Reader::vectors})
    if (can_read(reader, problem, at) && has_kernel(0, reader, problem)) return reader;
  return Reader::elements;
}

inline std::int64_t patches_of(const ConvGeometry& g, int rows, int patch_columns) {
  return ceil_div(g.q, patch_columns) * ceil_div(g.n * g.p, rows / patch_columns);
}

// The width that wastes least: pixels beyond the border, and input beside a patch, read once for each patch.
inline int patch_columns_for(const Problem& problem, Reader reader, int rows) {
  const ConvGeometry& g = problem.geometry;
  int best = kStrip;
  double least = 1e300;
  for (int columns = kStrip; columns <= rows; columns *= 2) {
    const auto extent = [](std::int64_t pixels, std::int64_t stride, std::int64_t taps,
                           std::int64_t dilation) {
      return static_cast<double>((pixels - 1) * stride + (taps - 1) * dilation + 1);
    };
    double wide = extent(columns, g.stride_w, g.s, g.dilation_w);
    const double high = extent(rows / columns, g.stride_h, g.r, g.dilation_h);
    if (reader == Reader::elements) {  // memory comes in pieces of 32 bytes along a row of pixels
      const double piece = 32.0 / bytes_of(problem.dtype);
      wide += piece;
    }
    const double taps = static_cast<double>(g.r * g.s);
    const double cost =
        static_cast<double>(patches_of(g, rows, columns)) * (rows * (2 + taps / 8) + high * wide);
    if (cost < least) {
      least = cost;
      best = columns;
    }
  }
  return best;
}

// Shared memory that a plan's block takes, with the pixels of all channels' stages where it keeps them.
inline std::int64_t shared_bytes(const Problem& problem, const Plan& plan) {
  const int bytes = bytes_of(problem.dtype);
  const Tile& tile = kTiles[plan.tile];
  const std::int64_t kept = plan.keeps ? ceil_div(problem.geometry.k, kRowBytes / bytes) : 0;
  const std::int64_t stages = plan.wgmma ? sm90_pixel_tiles(kept) : std::max<std::int64_t>(kept, 1);
  return working_bytes(tile.rows, tile.columns, bytes, bytes == 8 ? 8 : 4) + stages * tile.rows * kRowBytes;
}

// Clocks of the busiest SM. Where a block makes one tile of its pixels' output channels, blocks beside each
// other make the same intermediate again: input read from L2 and taps multiply-adds a pixel and channel on
// CUDA cores, against as many products as the tile is wide on tensor cores. A block that keeps the
// intermediate makes it once, but there are fewer of them, and each has an SM for itself. wgmma multiplies at
// the tensor cores' full rate, reads the pixels once for all columns, and while CUDA cores make the next
// stage: the longer of the two counts.
inline double clocks(const Problem& problem, const Plan& plan, const Gpu& gpu) {
  constexpr double kBytesAClock = 32, kAlone = 1.2, kApart = 1.1;
  constexpr double kWgmmaProducts = 1900;
  constexpr double kShareOfTile[kTileCount] = {0.6, 0.9, 1};  // narrow tiles read shared memory more often
  const ConvGeometry& g = problem.geometry;
  const Tile& tile = kTiles[plan.tile];
  const int bytes = bytes_of(problem.dtype);
  const double products_a_clock = !on_tensor_cores(problem) ? (bytes == 8 ? 48 : 96)
                                  : bytes == 4              ? 600
                                  : plan.wgmma              ? kWgmmaProducts
                                                            : 1200 * kShareOfTile[plan.tile];
  const double taps_a_clock = bytes == 8 || plan.reader == Reader::elements ? 32 : 64;
  const double column_tiles = static_cast<double>(ceil_div(problem.filters, tile.columns));
  const int wide = plan.patch_columns, high = tile.rows / wide;
  const double seen = static_cast<double>((high - 1) * g.stride_h + (g.r - 1) * g.dilation_h + 1) *
                      static_cast<double>((wide - 1) * g.stride_w + (g.s - 1) * g.dilation_w + 1);
  const double made = tile.rows * static_cast<double>(g.r * g.s) / taps_a_clock + seen * bytes / kBytesAClock;
  const double multiplied = tile.columns * (tile.rows / products_a_clock + bytes / kBytesAClock);
  const double patches = static_cast<double>(patches_of(g, tile.rows, plan.patch_columns));
  const double blocks = plan.keeps ? patches : patches * column_tiles;
  const double once = plan.wgmma ? kApart * std::max(made, multiplied) : made + multiplied;
  const double block = plan.keeps ? kAlone * (once + multiplied * (column_tiles - 1)) : once;
  return std::max(1.0, blocks / gpu.processors) * block * static_cast<double>(g.k);
}

inline Plan select(const Problem& problem, const Tensors& at, const Gpu& gpu) {
  Plan best;
  double least = 1e300;
  const Reader reader = reader_for(problem, at);
  for (const bool wgmma : {true, false}) {
    if (wgmma && (why_not_wgmma(gpu) != nullptr || gave_way(Yielding::pair_wgmma, 0, problem.dtype)))
      continue;
    for (int tile = 0; tile < kTileCount; ++tile) {
      if (!has_kernel(tile, reader, problem, wgmma)) continue;
      Plan plan{tile, reader};
      plan.wgmma = wgmma;
      plan.patch_columns = patch_columns_for(problem, reader, kTiles[tile].rows);
      for (const bool keeps : {false, true}) {
        plan.keeps = keeps;
        if (keeps && problem.filters <= kTiles[tile].columns) continue;
        if (shared_bytes(problem, plan) > gpu.block_bytes()) continue;
        const double cost = clocks(problem, plan, gpu);
        if (cost < least) {
          least = cost;
          best = plan;
        }
      }
    }
  }
  return best;
}

// The backward kernel makes the intermediate anew for every 256 bytes of filters, which 16-bit types pay for
// up to 4 times by the traffic they save. fp32 multiplies on CUDA cores there, once; where tf32 may be used
// the two layers' own kernels have tensor cores. fp64 is memory-bound nowhere; it is fused so that one kernel
// serves every way of checking it.
inline bool backward_pays(const Problem& problem) {
  if (problem.dtype == DType::float64) return true;
  const std::int64_t filters_once = 256 / bytes_of(problem.dtype);
  return problem.dtype == DType::float32 ? !problem.tf32 && problem.filters <= filters_once
                                         : problem.filters <= 4 * filters_once;
}

inline void refuse(const Plan& plan, const char* why) {
  throw std::invalid_argument("depthwise_separable_conv2d: the plan '" + describe(plan) +
                              "' cannot serve this problem: " + why);
}

// A plan that came from outside is refused, with the reason, where it cannot serve.
inline void validate(const Plan& plan, const Problem& problem, const Tensors& at, const Gpu& gpu) {
  if (plan.tile < 0 || plan.tile >= kTileCount)
    throw_invalid_argument("depthwise_separable_conv2d: no such tile");
  const bool power_of_two = plan.patch_columns > 0 && (plan.patch_columns & (plan.patch_columns - 1)) == 0;
  if (!power_of_two || plan.patch_columns < kStrip || plan.patch_columns > kTiles[plan.tile].rows)
    throw std::invalid_argument(
        "depthwise_separable_conv2d: patch_columns must be a power of two from 4 to the tile's rows, but "
        "got " +
        std::to_string(plan.patch_columns));
  if (!has_kernel(plan.tile, plan.reader, problem, plan.wgmma))
    refuse(plan, "this element type has no such kernel");
  if (const char* why = plan.wgmma ? cannot_run_wgmma(gpu) : nullptr) refuse(plan, why);
  if (const std::int64_t bytes = shared_bytes(problem, plan); bytes > gpu.block_bytes()) {
    const std::string why = "its block takes " + std::to_string(bytes) +
                            " bytes of shared memory, and this GPU gives one " +
                            std::to_string(gpu.block_bytes());
    refuse(plan, why.c_str());
  }
  if (!can_read(plan.reader, problem, at)) refuse(plan, "the input is not made for that reader");
}

inline Plan decide(const Problem& problem, const Tensors& at, const Gpu& gpu, const Plan* asked) {
  if (asked == nullptr) return select(problem, at, gpu);
  validate(*asked, problem, at, gpu);
  return *asked;
}

}  // namespace cnnkernels::depthwise_separable_conv
