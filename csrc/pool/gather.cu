// From a place in the window to an element of the input: its value, or its index.
#include "views.h"

namespace cnnkernels::pool {
namespace {

// One thread a site of the output. The lanes of a site read where their winners stand, so they are spread
// over images: a warp then reads neighbourhoods that overlap.
template <class T, class Place, class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_pool_gather_kernel(const Sites sites, const WindowAxis rows, const WindowAxis columns,
                       const T* __restrict__ input, const Place* __restrict__ argmax,
                       T* __restrict__ output) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);
  const auto image = sites.image(rows.size, columns.size);

  const Vector<Place, V> winner = lanes.load(argmax, sites.offset(at), sites.image());
  Vector<T, V> values;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    Index r = static_cast<Index>(winner[j]);
    const Index s = split(r, columns.by_places);
    const Index h = rows.start(at.row) + r * rows.dilation(),
                w = columns.start(at.column) + s * columns.dilation();
    const bool inside = h >= 0 && h < rows.size && w >= 0 && w < columns.size;
    values[j] =
        inside ? input[sites.offset(at, rows.size, columns.size, h, w) + lanes.step(j, image)] : narrow<T>(0);
  }
  lanes.store(output, sites.offset(at), sites.image(), values);
}

// Here strides and dilations are the caller's own: a window with no place inside the input has an index too.
template <class Place, class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_pool_indices_kernel(const Sites sites, const FastDivide by_places, std::int64_t stride_h,
                        std::int64_t stride_w, std::int64_t pad_h, std::int64_t pad_w,
                        std::int64_t dilation_h, std::int64_t dilation_w, std::int64_t width,
                        const Place* __restrict__ argmax, std::int64_t* __restrict__ indices) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);

  const Vector<Place, V> winner = lanes.load(argmax, sites.offset(at), sites.image());
  Vector<std::int64_t, V> values;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    Index r = static_cast<Index>(winner[j]);
    const Index s = split(r, by_places);
    values[j] =
        (at.row * stride_h - pad_h + r * dilation_h) * width + at.column * stride_w - pad_w + s * dilation_w;
  }
  lanes.store(indices, sites.offset(at), sites.image(), values);
}

}  // namespace

void max_pool_gather(DType dtype, DType places, const PoolGeometry& geometry, Layout layout,
                     const void* input, const void* argmax, void* output, std::uintptr_t stream,
                     std::int64_t largest_index) {
  const Pool pool(geometry, layout, largest_index);
  dispatch_floating(dtype, [&](auto t) {
    dispatch_places(places, [&](auto place) {
      using T = decltype(t);
      using Place = decltype(place);
      const auto* x = static_cast<const T*>(input);
      const auto* a = static_cast<const Place*>(argmax);
      auto* y = static_cast<T*>(output);
      pool.batch.map_threads<4>(pool.g.p, pool.g.q, [&](const auto& sites, std::int64_t first) {
        launch(&max_pool_gather_kernel<T, Place, std::decay_t<decltype(sites)>>,
               launch_over(sites.count, stream), sites, pool.rows(), pool.columns(),
               x + first * pool.input_image, a + first * pool.output_image, y + first * pool.output_image);
      });
    });
  });
}

void max_pool_indices(DType places, const PoolGeometry& geometry, Layout layout, const void* argmax,
                      std::int64_t* indices, std::uintptr_t stream, std::int64_t largest_index) {
  const Pool pool(geometry, layout, largest_index);
  const PoolGeometry& g = geometry;
  dispatch_places(places, [&](auto place) {
    using Place = decltype(place);
    const auto* a = static_cast<const Place*>(argmax);
    pool.batch.map_threads<4>(g.p, g.q, [&](const auto& sites, std::int64_t first) {
      launch(&max_pool_indices_kernel<Place, std::decay_t<decltype(sites)>>, launch_over(sites.count, stream),
             sites, FastDivide(g.s), g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.dilation_h, g.dilation_w,
             g.w, a + first * pool.output_image, indices + first * pool.output_image);
    });
  });
}

}  // namespace cnnkernels::pool
