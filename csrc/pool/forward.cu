// max_pool2d forward: the running maximum of every window, and the place where it was met.
#include "running.h"
#include "window.h"

namespace cnnkernels::pool {
namespace {

CNN_DEVICE Index clamp(Index x, Index low, Index high) { return x < low ? low : x > high ? high : x; }

// One thread a site of the output; windows are clipped to the input. S is the window's width where it is
// known at compile time (else 0): the loads of a row of the window are then in flight together. A place left
// or right of the input takes the nearest place inside for its own, which changes nothing: meeting an element
// twice in a row moves neither the maximum nor its place.
template <class T, class Place, int S, class Sites>
CNN_KERNEL(kThreads, 4)
max_pool_forward_kernel(const Sites sites, const Axis rows, const Axis columns, const T* __restrict__ input,
                        T* __restrict__ output, Place* __restrict__ argmax) {
  constexpr int V = Sites::kLanes;
  const Index i = thread_index();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);

  const Index h = rows.start(at.row), w = columns.start(at.column);
  const Index s_begin = columns.first_place(w), s_end = columns.end_place(w);
  const Index r_begin = rows.first_place(h), r_end = s_begin < s_end ? rows.end_place(h) : 0;
  const auto image = sites.image(rows.size, columns.size);

  Running<T, Place, V> running(r_begin * columns.places + s_begin);
#pragma unroll 1
  for (Index r = r_begin; r < r_end; ++r) {
    const auto element = [&](Index s) {
      const auto offset =
          sites.offset(at, rows.size, columns.size, h + r * rows.dilation(), w + s * columns.dilation());
      return lanes.load(input, offset, image);
    };
    if constexpr (S > 0) {
      Vector<T, V> values[S];
#pragma unroll
      for (int s = 0; s < S; ++s) values[s] = element(clamp(s, s_begin, s_end - 1));
#pragma unroll
      for (int s = 0; s < S; ++s) running.meet(values[s], r * S + clamp(s, s_begin, s_end - 1));
    } else {
      for (Index s = s_begin; s < s_end; ++s) running.meet(element(s), r * columns.places + s);
    }
  }
  lanes.store(output, sites.offset(at), sites.image(), running.values());
  lanes.store(argmax, sites.offset(at), sites.image(), running.places());
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
        launch(kernel_for<T, Place, std::decay_t<decltype(sites)>>(pool), over(sites.count, stream), sites,
               pool.rows(), pool.columns(), x + first * pool.input_image, y + first * pool.output_image,
               a + first * pool.output_image);
      };
      pool.batch.spread<kVector<T>>(pool.g.p, pool.g.q, start, x, y, a);
    });
  });
}

}  // namespace cnnkernels::pool
