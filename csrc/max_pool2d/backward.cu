// max_pool2d backward: every element of the input gathers the gradients of the windows it won.
#include <numeric>

#include "window.h"

namespace cnnkernels {
namespace {

// Which windows hold element x of one axis, and at which place? Those with
//     place * dilation + window * stride = x + pad,   0 <= place < places,   0 <= window < windows,
// a linear Diophantine equation. With g = gcd(stride, dilation) it has solutions only where g divides x +
// pad; they are then `stride / g` places and `dilation / g` windows apart, and place = (x + pad) / g *
// inverse modulo stride / g, where inverse * dilation / g = 1 modulo stride / g. So exactly the windows that
// hold x are visited.
template <class Index>
struct Route {
  Index pad, places, windows, window_step, inverse;
  Divider<Index> stride, dilation, common, place_step;

  Route(std::int64_t places, std::int64_t windows, std::int64_t stride, std::int64_t pad,
        std::int64_t dilation)
      : Route(places, windows, stride, pad, dilation, std::gcd(stride, dilation)) {}

  struct Windows {
    Index place, window;  // the first window that holds x, and x's place in it; place < 0 if there is none
  };
  CNN_DEVICE Windows first(Index x) const {
    Index rest = x + pad;
    const Index highest_place = dilation.quotient(rest);  // where window = 0
    const Index sum = rest;
    if (split(rest, common) != 0) return {-1, 0};
    const Index residue = modulo(modulo(rest) * inverse);
    const Index top = highest_place < places ? highest_place : places - 1;
    if (top < residue) return {-1, 0};
    const Index place = top - modulo(top - residue);
    return {place, stride.quotient(sum - place * dilation.divisor())};
  }

 private:
  Route(std::int64_t places, std::int64_t windows, std::int64_t stride, std::int64_t pad,
        std::int64_t dilation, std::int64_t g)
      : pad(static_cast<Index>(pad)),
        places(static_cast<Index>(places)),
        windows(static_cast<Index>(windows)),
        window_step(static_cast<Index>(dilation / g)),
        inverse(static_cast<Index>(invert(dilation / g, stride / g))),
        stride(stride),
        dilation(dilation),
        common(g),
        place_step(stride / g) {}

  CNN_DEVICE Index modulo(Index n) const { return split(n, place_step); }

  // a^-1 modulo m by Euclid's algorithm, for coprime a and m.
  static std::int64_t invert(std::int64_t a, std::int64_t m) {
    std::int64_t r = m, next_r = a % m, t = 0, next_t = 1;
    while (next_r != 0) {
      const std::int64_t q = r / next_r;
      r -= q * next_r;
      std::swap(r, next_r);
      t -= q * next_t;
      std::swap(t, next_t);
    }
    return ((t % m) + m) % m;
  }
};

// One thread a site of the input. Windows come in ascending (p, q); sums are kept in fp32 (fp64).
template <class T, class Place, class Sites, class Index = typename Sites::Offset>
CNN_KERNEL(kThreads, kBlocks<Index>)
max_pool2d_backward_kernel(const Sites sites, const Route<Index> rows, const Route<Index> columns,
                           const T* __restrict__ grad_output, const Place* __restrict__ argmax,
                           T* __restrict__ grad_input) {
  constexpr int V = Sites::kLanes;
  const Index i = thread_index<Index>();
  if (i >= sites.count) return;
  const Site<Index> at = sites[i];
  const auto lanes = sites.lanes(at);
  const Index channels = sites.channels.divisor(), image = rows.windows * columns.windows * channels;

  Accumulator<T> sum[V] = {};
  const auto vertical = rows.first(at.row), horizontal = columns.first(at.column);
  Index p = vertical.window;
  for (Index r = vertical.place; r >= 0 && p < rows.windows;
       r -= rows.place_step.divisor(), p += rows.window_step) {
    Index q = horizontal.window;
    for (Index s = horizontal.place; s >= 0 && q < columns.windows;
         s -= columns.place_step.divisor(), q += columns.window_step) {
      const Index offset = ((at.image * rows.windows + p) * columns.windows + q) * channels + at.channel;
      const Vector<T, V> grad = lanes.load(grad_output, offset, image);
      const Vector<Place, V> winner = lanes.load(argmax, offset, image);
      const Place place = static_cast<Place>(r * columns.places + s);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        if (winner[j] == place) sum[j] += widen(grad[j]);
      }
    }
  }

  Vector<T, V> grad;
#pragma unroll
  for (int j = 0; j < V; ++j) grad[j] = narrow<T>(sum[j]);
  lanes.store(grad_input, sites.offset(at), sites.image(), grad);
}

}  // namespace

void max_pool2d_backward(DType dtype, DType places, const Pool2dGeometry& geometry, Layout layout,
                         const void* grad_output, const void* argmax, void* grad_input, std::uintptr_t stream,
                         std::int64_t largest_index) {
  const Pool pool(geometry, layout);
  const Pool2dGeometry& g = pool.g;
  Batch batch = pool.batch(largest_index);
  constexpr std::int64_t kSquareFits = 46340;  // Route multiplies two numbers below the stride
  batch.small = batch.small && g.stride_h <= kSquareFits && g.stride_w <= kSquareFits;
  dispatch_floating(dtype, [&](auto t) {
    dispatch_places(places, [&](auto place) {
      using T = decltype(t);
      using Place = decltype(place);
      const auto* dy = static_cast<const T*>(grad_output);
      const auto* a = static_cast<const Place*>(argmax);
      auto* dx = static_cast<T*>(grad_input);
      const auto slice = [&](const auto& sites, std::int64_t first) {
        using Sites = std::decay_t<decltype(sites)>;
        using Index = typename Sites::Offset;
        const Route<Index> rows(g.r, g.p, g.stride_h, g.pad_h, g.dilation_h);
        const Route<Index> columns(g.s, g.q, g.stride_w, g.pad_w, g.dilation_w);
        launch(&max_pool2d_backward_kernel<T, Place, Sites>, over(sites.count, stream), sites, rows, columns,
               dy + first * pool.output_image(), a + first * pool.output_image(),
               dx + first * pool.input_image());
      };
      batch.spread<kVector<T>>(g.h, g.w, slice, dy, a, dx);
    });
  });
}

}  // namespace cnnkernels
