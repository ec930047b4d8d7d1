// avg_pool2d and adaptive_avg_pool2d forward: the sum of every window or bin over its divisor.
#include "averages.h"
#include "gradients.cuh"
#include "sum.cuh"

namespace cnnkernels::pool {
namespace {

// One thread a site of the output. `divisor` is that of all windows, 0 where they differ.
template <class T, class Axis, class Sites>
CNN_KERNEL(kSiteThreads, 4)
avg_pool_forward_kernel(const Sites sites, const Axis rows, const Axis columns, const Accumulator<T> divisor,
                        const T* __restrict__ input, T* __restrict__ output) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);
  const auto image = sites.image(rows.size, columns.size);

  const Span r = rows[at.row], s = columns[at.column];
  const auto element = [&](Index h, Index w) {
    return lanes.load(input, sites.offset(at, rows.size, columns.size, h, w), image);
  };
  auto sum = reduce_window<0>({s.begin, s.end, r.begin, r.end}, 0, 0, 1, element, Sum<T, V, 2>());
  sum.divide(divisor != 0 ? divisor : Accumulator<T>(r.length) * Accumulator<T>(s.length));
  lanes.store(output, sites.offset(at), sites.image(), rounded<T, V>(sum.total));
}

template <class Averages>
void forward(DType dtype, const Averages& averages, const void* input, void* output, std::uintptr_t stream) {
  const Pool& pool = averages.pool;
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto* x = static_cast<const T*>(input);
    auto* y = static_cast<T*>(output);
    const auto part = [&](const auto& sites, std::int64_t first) {
      using Sites = std::decay_t<decltype(sites)>;
      const auto rows = averages.template rows<typename Sites::Offset>();
      launch(&avg_pool_forward_kernel<T, std::decay_t<decltype(rows)>, Sites>,
             launch_over(sites.count, stream), sites, rows,
             averages.template columns<typename Sites::Offset>(),
             static_cast<Accumulator<T>>(averages.divisor), x + first * pool.input_image,
             y + first * pool.output_image);
    };
    pool.batch.template map_threads<kVectorLanes<T>>(pool.g.p, pool.g.q, part, x, y);
  });
}

}  // namespace

void avg_pool_forward(DType dtype, const PoolGeometry& geometry, Layout layout, bool count_include_pad,
                      std::int64_t divisor_override, const void* input, void* output, std::uintptr_t stream,
                      std::int64_t largest_index) {
  forward(dtype, Windows(geometry, layout, count_include_pad, divisor_override, largest_index), input, output,
          stream);
}

void adaptive_avg_pool_forward(DType dtype, const PoolGeometry& geometry, Layout layout, const void* input,
                               void* output, void* workspace, std::uintptr_t stream,
                               std::int64_t largest_index) {
  if (geometry.p == 1 && geometry.q == 1)
    return global_avg_pool_forward(dtype, geometry, layout, input, output, workspace, stream, largest_index);
  forward(dtype, AdaptiveBins(geometry, layout, largest_index), input, output, stream);
}

}  // namespace cnnkernels::pool
