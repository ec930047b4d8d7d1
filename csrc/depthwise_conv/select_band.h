// When large filters go to tensor cores (band.h), and in which blocks. A pure function of the problem.
#pragma once

#include "../common/types.h"
#include "band.h"

namespace cnnkernels::depthwise_conv {

inline constexpr std::int64_t kBandFilter = 13 * 13;  // taps from which on tensor cores are expected to win
inline constexpr std::int64_t kBandBlocks = 132;      // one for each SM of about one GPU of the H200's size

inline constexpr std::int64_t kWantedBlocks = 264;  // two for each SM of about one GPU of the H200's size
inline constexpr std::int64_t kWorkspaceLimit = std::int64_t(256) << 20;

// At most `most` of `total`, in parts as equal as can be.
inline int share(std::int64_t total, std::int64_t most) {
  const std::int64_t part = std::clamp<std::int64_t>(total, 1, std::max<std::int64_t>(most, 1));
  return static_cast<int>(ceil_div(total, ceil_div(total, part)));
}

// 16-bit types, one filter a channel, neighbouring taps and results.
inline bool has_bands(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  return (problem.dtype == DType::float16 || problem.dtype == DType::bfloat16) && g.k == g.c &&
         g.stride_h == 1 && g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1;
}
inline bool is_large(const Problem& problem) {
  return problem.geometry.r * problem.geometry.s >= kBandFilter;
}

inline int band_warps(const Band& s) {
  const double warps = double(s.column_tiles.divisor) * s.row_tiles.divisor * s.planes.channels;
  return warps > kWarps ? kWarps + 1 : static_cast<int>(warps);
}
inline bool can_band(const Correlation& c, const Plan& plan) {
  const auto listed = [](const auto& list, int value) {
    return std::find(std::begin(list), std::end(list), value) != std::end(list);
  };
  if (!listed(kBandSteps, band_steps(c.b.taps)) || !listed(kBandTiles, plan.tiles)) return false;
  const Band s = band_of(c, plan);
  return band_warps(s) <= kWarps && s.planes.bytes <= kBandBytes;
}
inline bool can_band(const WeightGradient& g, const Plan& plan) {
  return plan.lanes * std::int64_t(plan.workers) <= kWarps &&
         band_gradient_of(g, plan).planes.bytes <= kBandBytes;
}

// The warp's columns that cover a row with the least work: each tile costs its products, and each warp the
// blocks at its end that it shares with no other.
inline int band_tiles_for(std::int64_t columns) {
  const auto cost = [&](int tiles) { return ceil_div(ceil_div(columns, kColumnTile), tiles) * (tiles + 2); };
  int best = kBandTiles[0];
  for (const int tiles : kBandTiles)
    if (cost(tiles) < cost(best)) best = tiles;
  return best;
}

// Eight warps: of NHWC for eight channels, which come in one access; of NCHW for the rows of several images,
// which share a filter. Fewer where that leaves SMs without a block.
inline bool choose_band(Plan& plan, const Problem& problem, const Correlation& c) {
  if (!has_bands(problem) || !is_large(problem)) return false;
  const std::int64_t images = c.images, channels = c.channels.divisor, height = c.a.result_size;
  Plan band;
  band.band = true;
  band.tiles = band_tiles_for(c.b.result_size);
  const std::int64_t columns = ceil_div(c.b.result_size, kColumnTile * band.tiles);
  if (columns > kWarps) return false;
  band.lanes = c.channels_last ? static_cast<int>(std::min(channels, kWarps / columns)) : 1;
  const std::int64_t rows = kWarps / columns / band.lanes * kRowTile;
  band.strips = share(height, rows);
  if (band.strips == height) band.images = share(images, rows / height);
  const auto row_tiles = [&] { return ceil_div(std::int64_t(band.images) * band.strips, kRowTile); };
  if (!c.channels_last) band.lanes = share(channels, kWarps / columns / row_tiles());
  const auto few = [&] {
    return ceil_div(channels, band.lanes) * ceil_div(images, band.images) * ceil_div(height, band.strips) <
           kBandBlocks;
  };
  const auto halve = [](int& extent) { extent = (extent + 1) / 2; };
  while (few() && band.images > 1) halve(band.images);
  while (few() && band.lanes > 1) halve(band.lanes);
  while (!can_band(c, band)) {
    if (band.lanes > 4)  // what still come in one access
      halve(band.lanes);
    else if (band.images > 1)
      halve(band.images);
    else if (band.strips > kRowTile)
      halve(band.strips);
    else if (band.lanes > 1)
      halve(band.lanes);
    else if (band.strips > 1)
      halve(band.strips);
    else
      return false;
  }
  plan = band;
  return true;
}

inline bool choose_band(Plan& plan, const Problem& problem, const WeightGradient& w) {
  if (!has_bands(problem) || !is_large(problem)) return false;
  Plan band;
  band.band = true;
  band.lanes = w.channels_last ? std::min<int>(w.channels, kWarps) : 1;
  band.workers = kWarps / band.lanes;
  band.strips = w.a.result_size;
  // Rows until what is read twice, for the filter's reach, would pass what is read once; then channels.
  while (!can_band(w, band)) {
    if (band.strips > w.a.taps || (band.lanes == 1 && band.strips > 1)) {
      band.strips = (band.strips + 1) / 2;
    } else if (band.lanes > 1) {
      band.lanes = (band.lanes + 1) / 2;
      band.workers = kWarps / band.lanes;
    } else {
      return false;
    }
  }
  const BandGradient s = band_gradient_of(w, band);
  const std::int64_t blocks = std::int64_t(s.planes.channel_blocks.divisor) * s.tiles.divisor;
  const std::int64_t rounds = std::int64_t(w.images) * s.planes.row_blocks.divisor;
  const std::int64_t affordable = kWorkspaceLimit / (w.channels * w.taps.size * 8);
  band.splits = static_cast<int>(
      std::max<std::int64_t>(1, std::min({ceil_div(2 * kWantedBlocks, blocks), rounds, affordable})));
  plan = band;
  return true;
}

}  // namespace cnnkernels::depthwise_conv
