// avg_pool2d and adaptive_avg_pool2d backward: every element of the input gathers the gradients of the
// windows or bins that it is in, in ascending (p, q); sums are kept in fp32 (fp64).
#include "averages.h"
#include "gradients.cuh"

namespace cnnkernels::pool {
namespace {

// Sites are tiles of neighbours. `divisor` is that of all windows, 0 where they differ. Gradients are divided
// before they are added; `together`, after, which is fewer divisions where windows of one divisor overlap.
template <class T, class Axis, class Sites>
CNN_KERNEL(kSiteThreads, 3)
avg_pool_backward_kernel(const Sites sites, const Axis rows, const Axis columns, const Accumulator<T> divisor,
                         const bool together, const T* __restrict__ grad_output, T* __restrict__ grad_input) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);
  const auto image = sites.image(rows.windows, columns.windows);
  const Index h = at.row * kTile, w = at.column * kTile;

  const bool after = Axis::kOverlapEvenly && together;
  Accumulator<T> sum[kTile][kTile][V] = {};
  const Index p_end = rows.end(h + kTile - 1), q_begin = columns.first(w), q_end = columns.end(w + kTile - 1);
  for (Index p = rows.first(h); p < p_end; ++p) {
    const Span r = rows[p];
    for (Index q = q_begin; q < q_end; ++q) {
      const Span s = columns[q];
      Gradients<T, V> grad(
          lanes.load(grad_output, sites.offset(at, rows.windows, columns.windows, p, q), image));
      if (!after) grad.divide(divisor != 0 ? divisor : Accumulator<T>(r.length) * Accumulator<T>(s.length));
#pragma unroll
      for (Index a = 0; a < kTile; ++a) {
#pragma unroll
        for (Index b = 0; b < kTile; ++b) {
          if (h + a < r.begin || h + a >= r.end || w + b < s.begin || w + b >= s.end) continue;
#pragma unroll
          for (int j = 0; j < V; ++j) sum[a][b][j] += grad.of[j];
        }
      }
    }
  }

#pragma unroll
  for (Index a = 0; a < kTile; ++a) {
#pragma unroll
    for (Index b = 0; b < kTile; ++b) {
      if (h + a >= rows.size || w + b >= columns.size) continue;
      if (after) {
#pragma unroll
        for (int j = 0; j < V; ++j) sum[a][b][j] /= divisor;
      }
      lanes.store(grad_input, sites.offset(at, rows.size, columns.size, h + a, w + b),
                  sites.image(rows.size, columns.size), rounded<T, V>(sum[a][b]));
    }
  }
}

template <class Averages>
void backward(DType dtype, const Averages& averages, const void* grad_output, void* grad_input,
              std::uintptr_t stream) {
  const Pool& pool = averages.pool;
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto* dy = static_cast<const T*>(grad_output);
    auto* dx = static_cast<T*>(grad_input);
    const auto part = [&](const auto& sites, std::int64_t first) {
      using Sites = std::decay_t<decltype(sites)>;
      const auto rows = averages.template rows<typename Sites::Offset>();
      launch(&avg_pool_backward_kernel<T, std::decay_t<decltype(rows)>, Sites>,
             launch_over(sites.count, stream), sites, rows,
             averages.template columns<typename Sites::Offset>(),
             static_cast<Accumulator<T>>(averages.divisor), averages.together, dy + first * pool.output_image,
             dx + first * pool.input_image);
    };
    pool.batch.template map_threads<kVectorLanes<T>>(tiles(pool.g.h), tiles(pool.g.w), part, dy, dx);
  });
}

}  // namespace

void avg_pool_backward(DType dtype, const PoolGeometry& geometry, Layout layout, bool count_include_pad,
                       std::int64_t divisor_override, const void* grad_output, void* grad_input,
                       std::uintptr_t stream, std::int64_t largest_index) {
  backward(dtype, Windows(geometry, layout, count_include_pad, divisor_override, largest_index), grad_output,
           grad_input, stream);
}

void adaptive_avg_pool_backward(DType dtype, const PoolGeometry& geometry, Layout layout,
                                const void* grad_output, void* grad_input, std::uintptr_t stream,
                                std::int64_t largest_index) {
  backward(dtype, AdaptiveBins(geometry, layout, largest_index), grad_output, grad_input, stream);
}

}  // namespace cnnkernels::pool
