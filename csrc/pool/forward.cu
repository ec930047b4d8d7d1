// max_pool2d forward: the maximum of every window, and the place where it was met.
#include "reduce.cuh"
#include "views.h"

namespace cnnkernels::pool {
namespace {

// One thread a site of the output. S is the window's width where it is known at compile time (else 0).
template <class T, class Place, int S, class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_pool_forward_kernel(const Sites sites, const WindowAxis rows, const WindowAxis columns,
                        const T* __restrict__ input, T* __restrict__ output, Place* __restrict__ argmax) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);

  const Window window(rows, columns, at.row, at.column);
  const auto image = sites.image(rows.size, columns.size);
  const Maximum<T, Place, V> none(window.r_begin * columns.places + window.s_begin);
  const auto element = [&](Index r, Index s) {
    const auto offset = sites.offset(at, rows.size, columns.size, window.h + r * rows.dilation(),
                                     window.w + s * columns.dilation());
    return lanes.load(input, offset, image);
  };
  const auto maximum = reduce_window<S>(window, columns.places, 0, 1, element, none);
  lanes.store(output, sites.offset(at), sites.image(), maximum.values());
  lanes.store(argmax, sites.offset(at), sites.image(), maximum.places());
}

template <class T, class Place, class Sites>
auto kernel_for(const Pool& pool) {
  if constexpr (std::is_same_v<Place, std::uint8_t> && sizeof(typename Sites::Offset) == 4) {
    if (pool.g.s == 2) return &max_pool_forward_kernel<T, Place, 2, Sites>;
    if (pool.g.s == 3) return &max_pool_forward_kernel<T, Place, 3, Sites>;
  }
  return &max_pool_forward_kernel<T, Place, 0, Sites>;
}

}  // namespace

void max_pool_forward(DType dtype, DType places, const PoolGeometry& geometry, Layout layout,
                      const void* input, void* output, void* argmax, std::uintptr_t stream,
                      std::int64_t largest_index) {
  const Pool pool(geometry, layout, largest_index);
  dispatch_floating(dtype, [&](auto t) {
    dispatch_places(places, [&](auto place) {
      using T = decltype(t);
      using Place = decltype(place);
      const auto* x = static_cast<const T*>(input);
      auto* y = static_cast<T*>(output);
      auto* a = static_cast<Place*>(argmax);
      const auto start = [&](const auto& sites, std::int64_t first) {
        launch(kernel_for<T, Place, std::decay_t<decltype(sites)>>(pool), launch_over(sites.count, stream),
               sites, pool.rows(), pool.columns(), x + first * pool.input_image,
               y + first * pool.output_image, a + first * pool.output_image);
      };
      pool.batch.map_threads<kVectorLanes<T>>(pool.g.p, pool.g.q, start, x, y, a);
    });
  });
}

}  // namespace cnnkernels::pool
