// The host's view of average pooling: which axes its kernels take, and the divisor that all windows have.
#pragma once

#include "avg_pool.h"
#include "spans.h"
#include "views.h"

namespace cnnkernels::pool {

// avg_pool.
struct Windows {
  Pool pool;
  bool count_include_pad;
  std::int64_t divisor;  // 0 where windows differ
  bool together;         // sums are divided by it, not what they are of

  Windows(const PoolGeometry& geometry, Layout layout, bool count_include_pad, std::int64_t divisor_override,
          std::int64_t largest_index)
      : pool(geometry, layout, largest_index, "avg_pool2d"), count_include_pad(count_include_pad) {
    const PoolGeometry& g = pool.g;
    const auto whole = [&](std::int64_t size, std::int64_t places, std::int64_t windows, std::int64_t stride,
                           std::int64_t pad) {
      const std::int64_t counted = count_include_pad ? pad : 0;
      return pad == counted && (windows - 1) * stride - pad + places <= size + counted;
    };
    const bool same = whole(g.h, g.r, g.p, g.stride_h, g.pad_h) && whole(g.w, g.s, g.q, g.stride_w, g.pad_w);
    divisor = divisor_override != 0 ? divisor_override : same ? g.r * g.s : 0;
    together = divisor != 0 && (g.stride_h < g.r || g.stride_w < g.s);
  }

  template <class Offset>
  WindowSpans rows() const {
    return {pool.g.h, pool.g.r, pool.g.p, pool.g.stride_h, pool.g.pad_h, count_include_pad};
  }
  template <class Offset>
  WindowSpans columns() const {
    return {pool.g.w, pool.g.s, pool.g.q, pool.g.stride_w, pool.g.pad_w, count_include_pad};
  }
};

// adaptive_avg_pool. Bins whose products pass 32 bits go with the images whose offsets do.
struct AdaptiveBins {
  Pool pool;
  std::int64_t divisor;
  static constexpr bool together = false;

  AdaptiveBins(const PoolGeometry& geometry, Layout layout, std::int64_t largest_index)
      : pool(geometry, layout, largest_index, "adaptive_avg_pool2d") {
    const PoolGeometry& g = pool.g;
    divisor = g.h % g.p == 0 && g.w % g.q == 0 ? g.h / g.p * (g.w / g.q) : 0;
    if (!small_bins(g.h, g.p) || !small_bins(g.w, g.q)) pool.batch.largest_image = INT64_MAX;
  }

  template <class Offset>
  Bins<Offset> rows() const {
    return {pool.g.h, pool.g.p};
  }
  template <class Offset>
  Bins<Offset> columns() const {
    return {pool.g.w, pool.g.q};
  }
};

}  // namespace cnnkernels::pool
