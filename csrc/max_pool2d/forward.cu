// max_pool2d forward: the running maximum of every window, and the place where it was met.
#include "window.h"

namespace cnnkernels {
namespace {

template <class T>
CNN_DEVICE Accumulator<T> minus_infinity() {
  return -static_cast<Accumulator<T>>(INFINITY);
}

// The largest element so far of V windows, and its place.
template <class T, int V>
struct Running {
  Accumulator<T> best[V];
  std::int32_t place[V];

  CNN_DEVICE explicit Running(std::int32_t first_place) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      best[j] = minus_infinity<T>();
      place[j] = first_place;
    }
  }
  // Strictly greater, so that the first maximum stays. A NaN is always taken, and only another NaN replaces
  // it.
  CNN_DEVICE void meet(const Vector<T, V>& values, std::int32_t at) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const Accumulator<T> x = widen(values[j]);
      const bool wins = x > best[j] || x != x;
      best[j] = wins ? x : best[j];
      place[j] = wins ? at : place[j];
    }
  }
};

// One thread a site of the output; windows are clipped to the input. S is the window's width where it is
// known at compile time (else 0): the loads of a row of the window are then in flight together, one that
// would fall outside giving -inf.
template <class T, class Place, int S, class Sites, class Index = typename Sites::Offset>
CNN_KERNEL(kThreads, kBlocks<Index>)
max_pool2d_forward_kernel(const Sites sites, const Axis<Index> rows, const Axis<Index> columns,
                          const T* __restrict__ input, T* __restrict__ output, Place* __restrict__ argmax) {
  constexpr int V = Sites::kLanes;
  const Index i = thread_index<Index>();
  if (i >= sites.count) return;
  const Site<Index> at = sites[i];
  const auto lanes = sites.lanes(at);

  const Index h = rows.start(at.row), w = columns.start(at.column);
  const Index r_begin = rows.first_place(h), r_end = rows.end_place(h);
  const Index s_begin = columns.first_place(w), s_end = columns.end_place(w);
  const Index channels = sites.channels.divisor(), image = rows.size * columns.size * channels;

  Running<T, V> running(static_cast<std::int32_t>(r_begin * columns.places + s_begin));
  for (Index r = r_begin; r < r_end; ++r) {
    const Index row = (at.image * rows.size + h + r * rows.dilation) * columns.size + w;
    const auto element = [&](Index s) {
      return lanes.load(input, (row + s * columns.dilation) * channels + at.channel, image);
    };
    if constexpr (S > 0) {
      Vector<T, V> values[S];
#pragma unroll
      for (int s = 0; s < S; ++s) {
#pragma unroll
        for (int j = 0; j < V; ++j) values[s][j] = narrow<T>(minus_infinity<T>());
        if (s >= s_begin && s < s_end) values[s] = element(s);
      }
#pragma unroll
      for (int s = 0; s < S; ++s) running.meet(values[s], static_cast<std::int32_t>(r * S + s));
    } else {
      for (Index s = s_begin; s < s_end; ++s) {
        running.meet(element(s), static_cast<std::int32_t>(r * columns.places + s));
      }
    }
  }

  Vector<T, V> best;
  Vector<Place, V> place;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    best[j] = narrow<T>(running.best[j]);
    place[j] = static_cast<Place>(running.place[j]);
  }
  lanes.store(output, sites.offset(at), sites.image(), best);
  lanes.store(argmax, sites.offset(at), sites.image(), place);
}

template <class T, class Place, class Sites>
void start(const Pool& pool, const Sites& sites, const T* input, T* output, Place* argmax,
           std::uintptr_t stream) {
  using Index = typename Sites::Offset;
  const auto with = [&](auto kernel) {
    launch(kernel, over(sites.count, stream), sites, pool.rows<Index>(), pool.columns<Index>(), input, output,
           argmax);
  };
  if constexpr (std::is_same_v<Place, std::uint8_t> && std::is_same_v<Index, std::int32_t>) {
    if (pool.g.s == 2) return with(&max_pool2d_forward_kernel<T, Place, 2, Sites>);
    if (pool.g.s == 3) return with(&max_pool2d_forward_kernel<T, Place, 3, Sites>);
  }
  with(&max_pool2d_forward_kernel<T, Place, 0, Sites>);
}

}  // namespace

void max_pool2d_forward(DType dtype, DType places, const Pool2dGeometry& geometry, Layout layout,
                        const void* input, void* output, void* argmax, std::uintptr_t stream,
                        std::int64_t largest_index) {
  const Pool pool(geometry, layout);
  dispatch_floating(dtype, [&](auto t) {
    dispatch_places(places, [&](auto place) {
      const auto* x = static_cast<const decltype(t)*>(input);
      auto* y = static_cast<decltype(t)*>(output);
      auto* a = static_cast<decltype(place)*>(argmax);
      const auto slice = [&](const auto& sites, std::int64_t first) {
        start(pool, sites, x + first * pool.input_image(), y + first * pool.output_image(),
              a + first * pool.output_image(), stream);
      };
      pool.batch(largest_index).spread<kVector<decltype(t)>>(pool.g.p, pool.g.q, slice, x, y, a);
    });
  });
}

}  // namespace cnnkernels
