// max_pool2d backward: every element of the input gathers the gradients of the windows it won. TransposedAxis
// come in ascending (p, q); sums are kept in fp32 (fp64).
#include "gradients.cuh"
#include "transposed_window.h"
#include "views.h"

namespace cnnkernels::pool {
namespace {

// Which lanes' winners stand at a given place? Adjacent ones are compared within the words they are loaded
// in.
template <class Place, class Sites>
struct Winners {
  static constexpr int V = Sites::kLanes, kPerWord = 4 / sizeof(Place);
  static constexpr bool kWords = Sites::kAdjacent && kPerWord > 1 && V % kPerWord == 0;
  static constexpr std::uint32_t kMask = kPerWord == 4 ? 0xff : 0xffff;
  std::conditional_t<kWords, Vector<std::uint32_t, V / kPerWord>, Vector<Place, V>> places;

  CNN_DEVICE Winners(const typename Sites::LanesAt& lanes, const Place* argmax, typename Sites::Offset offset,
                     typename Sites::Offset image) {
    if constexpr (kWords) {
      places = load<V / kPerWord>(reinterpret_cast<const std::uint32_t*>(argmax + offset));
    } else {
      places = lanes.load(argmax, offset, image);
    }
  }
  CNN_DEVICE bool is(int j, Index place) const {
    if constexpr (kWords) {
      const std::uint32_t everywhere = static_cast<std::uint32_t>(place) * (0xffffffffu / kMask);
      return ((places[j / kPerWord] ^ everywhere) & (kMask << (j % kPerWord * 32 / kPerWord))) == 0;
    } else {
      return places[j] == static_cast<Place>(place);
    }
  }
};

// Dilation 1: sites are tiles of neighbours.

template <class T, class Place, class Sites>
CNN_KERNEL(kSiteThreads, 3)
max_pool_backward_kernel(const Sites sites, const TransposedAxis rows, const TransposedAxis columns,
                         const T* __restrict__ grad_output, const Place* __restrict__ argmax,
                         T* __restrict__ grad_input) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);
  const auto image = sites.image(rows.windows, columns.windows);
  const Index h = at.row * kTile, w = at.column * kTile;
  const Index x = h + rows.pad, y = w + columns.pad;

  Accumulator<T> sum[kTile][kTile][V] = {};
  const Index p_end = rows.end(x + kTile - 1), q_begin = columns.first(y), q_end = columns.end(y + kTile - 1);
  for (Index p = rows.first(x); p < p_end; ++p) {
    for (Index q = q_begin; q < q_end; ++q) {
      const auto offset = sites.offset(at, rows.windows, columns.windows, p, q);
      const Gradients<T, V> grad(lanes.load(grad_output, offset, image));
      const Winners<Place, Sites> winners(lanes, argmax, offset, image);
      const Index r = x - p * rows.stride(), s = y - q * columns.stride();
#pragma unroll
      for (Index a = 0; a < kTile; ++a) {
#pragma unroll
        for (Index b = 0; b < kTile; ++b) {
          if (r + a < 0 || r + a >= rows.places || s + b < 0 || s + b >= columns.places) continue;
#pragma unroll
          for (int j = 0; j < V; ++j) {
            if (winners.is(j, (r + a) * columns.places + s + b)) sum[a][b][j] += grad.of[j];
          }
        }
      }
    }
  }

#pragma unroll
  for (Index a = 0; a < kTile; ++a) {
#pragma unroll
    for (Index b = 0; b < kTile; ++b) {
      if (h + a >= rows.size || w + b >= columns.size) continue;
      lanes.store(grad_input, sites.offset(at, rows.size, columns.size, h + a, w + b),
                  sites.image(rows.size, columns.size), rounded<T, V>(sum[a][b]));
    }
  }
}

// Any dilation: a thread takes one element.
template <class T, class Place, class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_pool_backward_dilated_kernel(const Sites sites, const DilatedTransposedAxis rows,
                                 const DilatedTransposedAxis columns, const T* __restrict__ grad_output,
                                 const Place* __restrict__ argmax, T* __restrict__ grad_input) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);
  const auto image = sites.image(rows.windows, columns.windows);

  Accumulator<T> sum[V] = {};
  const auto top = rows.first(at.row + rows.pad), left = columns.first(at.column + columns.pad);
  Index p = top.window;
  for (Index r = top.place; r >= 0 && p < rows.windows; r -= rows.place_step(), p += rows.window_step) {
    Index q = left.window;
    for (Index s = left.place; s >= 0 && q < columns.windows;
         s -= columns.place_step(), q += columns.window_step) {
      const auto offset = sites.offset(at, rows.windows, columns.windows, p, q);
      const Gradients<T, V> grad(lanes.load(grad_output, offset, image));
      const Winners<Place, Sites> winners(lanes, argmax, offset, image);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        if (winners.is(j, r * columns.places + s)) sum[j] += grad.of[j];
      }
    }
  }
  lanes.store(grad_input, sites.offset(at), sites.image(), rounded<T, V>(sum));
}

}  // namespace

void max_pool_backward(DType dtype, DType places, const PoolGeometry& geometry, Layout layout,
                       const void* grad_output, const void* argmax, void* grad_input, std::uintptr_t stream,
                       std::int64_t largest_index) {
  const Pool pool(geometry, layout, largest_index);
  const PoolGeometry& g = pool.g;
  dispatch_floating(dtype, [&](auto t) {
    dispatch_places(places, [&](auto place) {
      using T = decltype(t);
      using Place = decltype(place);
      const auto* dy = static_cast<const T*>(grad_output);
      const auto* a = static_cast<const Place*>(argmax);
      auto* dx = static_cast<T*>(grad_input);
      const auto start = [&](auto kernel, const auto& sites, const auto& rows, const auto& columns,
                             std::int64_t first) {
        launch(kernel, launch_over(sites.count, stream), sites, rows, columns, dy + first * pool.output_image,
               a + first * pool.output_image, dx + first * pool.input_image);
      };
      if (g.dilation_h == 1 && g.dilation_w == 1) {
        const auto part = [&](const auto& sites, std::int64_t first) {
          start(&max_pool_backward_kernel<T, Place, std::decay_t<decltype(sites)>>, sites,
                TransposedAxis(g.h, g.r, g.p, g.stride_h, g.pad_h),
                TransposedAxis(g.w, g.s, g.q, g.stride_w, g.pad_w), first);
        };
        pool.batch.map_threads<kVectorLanes<T>>(tiles(g.h), tiles(g.w), part, dy, a, dx);
      } else {
        const auto part = [&](const auto& sites, std::int64_t first) {
          start(&max_pool_backward_dilated_kernel<T, Place, std::decay_t<decltype(sites)>>, sites,
                DilatedTransposedAxis(g.r, g.p, g.stride_h, g.pad_h, g.dilation_h),
                DilatedTransposedAxis(g.s, g.q, g.stride_w, g.pad_w, g.dilation_w), first);
        };
        pool.batch.map_threads<kVectorLanes<T>>(g.h, g.w, part, dy, a, dx);
      }
    });
  });
}

}  // namespace cnnkernels::pool
