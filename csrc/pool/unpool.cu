// max_unpool2d: values go back to where their indices say, zeros elsewhere.
//
// Two windows may name one element. The scatter therefore moves positions, not values: an integer atomicMax
// keeps the last window's, whatever order the threads run in, and a gather then fetches that window's value.
#include <type_traits>

#include "../common/sites.h"
#include "../common/types.h"
#include "pool.h"

namespace cnnkernels::pool {
namespace {

// Rows and columns of the tensor that is not spread over the threads.
struct Plane {
  Index rows, columns;
  std::int64_t size;
};

// The element of lane j at position `index` of its plane.
template <class Sites>
CNN_DEVICE typename Sites::Offset element(const Sites& sites, const typename Sites::LanesAt& lanes,
                                          const Site& at, const Plane& plane, std::int64_t index, int j) {
  using Offset = typename Sites::Offset;
  const Offset first = sites.offset(at, plane.rows, plane.columns, 0, 0);
  return first + static_cast<Offset>(index) * sites.channels +
         lanes.step(j, sites.image(plane.rows, plane.columns));
}

// Sites of indices [n, c, p, q]; `out` is the plane of winner [n, c, h, w].
template <class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_unpool_scatter_kernel(const Sites sites, const Plane out, const std::int64_t* __restrict__ indices,
                          std::int32_t* __restrict__ winner) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);
  const std::int32_t position = at.row * sites.columns + at.column + 1;

  const Vector<std::int64_t, V> index = lanes.load(indices, sites.offset(at), sites.image());
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (j > lanes.last || index[j] < 0 || index[j] >= out.size) continue;
    atomicMax(&winner[element(sites, lanes, at, out, index[j], j)], position);
  }
}

// Sites of output [n, c, h, w]; `in` is the plane of input [n, c, p, q]. An element without a winner is 0.
template <class T, class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_unpool_forward_kernel(const Sites sites, const Plane in, const T* __restrict__ input,
                          const std::int32_t* __restrict__ winner, T* __restrict__ output) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);

  const Vector<std::int32_t, V> position = lanes.load(winner, sites.offset(at), sites.image());
  Vector<T, V> values;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    values[j] = position[j] > 0 ? input[element(sites, lanes, at, in, position[j] - 1, j)] : narrow<T>(0);
  }
  lanes.store(output, sites.offset(at), sites.image(), values);
}

// Sites of grad_input [n, c, p, q]; `out` is the plane of grad_output [n, c, h, w].
template <class T, class Sites>
CNN_KERNEL(kSiteThreads, 4)
max_unpool_backward_kernel(const Sites sites, const Plane out, const T* __restrict__ grad_output,
                           const std::int64_t* __restrict__ indices, T* __restrict__ grad_input) {
  constexpr int V = Sites::kLanes;
  const Index i = site_of_thread();
  if (i >= sites.count) return;
  const Site at = sites[i];
  const auto lanes = sites.lanes(at);

  const Vector<std::int64_t, V> index = lanes.load(indices, sites.offset(at), sites.image());
  Vector<T, V> values;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const bool inside = index[j] >= 0 && index[j] < out.size;
    values[j] = inside ? grad_output[element(sites, lanes, at, out, index[j], j)] : narrow<T>(0);
  }
  lanes.store(grad_input, sites.offset(at), sites.image(), values);
}

// An unpooling as the kernels see it: N * C images of one channel for NCHW.
struct Unpool {
  Plane in, out;
  Batch batch;
  std::int64_t input_image, output_image;  // elements

  Unpool(const UnpoolGeometry& g, Layout layout, std::int64_t largest_index)
      : in{static_cast<Index>(g.p), static_cast<Index>(g.q), g.p * g.q},
        out{static_cast<Index>(g.h), static_cast<Index>(g.w), g.h * g.w} {
    if (in.size >= INT32_MAX)
      throw_invalid_argument("max_unpool2d: an input plane of 2^31 - 1 or more elements");
    if (g.h > INT32_MAX || g.w > INT32_MAX) throw_invalid_argument("max_unpool2d: rows or columns pass 2^31");
    const std::int64_t channels = layout == Layout::nhwc ? g.c : 1;
    input_image = in.size * channels;
    output_image = out.size * channels;
    batch = {layout == Layout::nhwc ? g.n : g.n * g.c, channels,
             input_image > output_image ? input_image : output_image, largest_index};
  }
};

}  // namespace

void max_unpool_forward(DType dtype, const UnpoolGeometry& g, Layout layout, const void* input,
                        const std::int64_t* indices, std::int32_t* winner, void* output,
                        std::uintptr_t stream, std::int64_t largest_index) {
  const Unpool unpool(g, layout, largest_index);
  const std::int32_t* found = winner;
  unpool.batch.map_threads<4>(g.p, g.q, [&](const auto& sites, std::int64_t first) {
    launch(&max_unpool_scatter_kernel<std::decay_t<decltype(sites)>>, launch_over(sites.count, stream), sites,
           unpool.out, indices + first * unpool.input_image, winner + first * unpool.output_image);
  });
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto* x = static_cast<const T*>(input);
    auto* y = static_cast<T*>(output);
    const auto start = [&](const auto& sites, std::int64_t first) {
      launch(&max_unpool_forward_kernel<T, std::decay_t<decltype(sites)>>, launch_over(sites.count, stream),
             sites, unpool.in, x + first * unpool.input_image, found + first * unpool.output_image,
             y + first * unpool.output_image);
    };
    unpool.batch.map_threads<kVectorLanes<T>>(g.h, g.w, start, found, y);
  });
}

void max_unpool_backward(DType dtype, const UnpoolGeometry& g, Layout layout, const void* grad_output,
                         const std::int64_t* indices, void* grad_input, std::uintptr_t stream,
                         std::int64_t largest_index) {
  const Unpool unpool(g, layout, largest_index);
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto* dy = static_cast<const T*>(grad_output);
    auto* dx = static_cast<T*>(grad_input);
    const auto start = [&](const auto& sites, std::int64_t first) {
      launch(&max_unpool_backward_kernel<T, std::decay_t<decltype(sites)>>, launch_over(sites.count, stream),
             sites, unpool.out, dy + first * unpool.output_image, indices + first * unpool.input_image,
             dx + first * unpool.input_image);
    };
    unpool.batch.map_threads<kVectorLanes<T>>(g.p, g.q, start, indices, dx);
  });
}

}  // namespace cnnkernels::pool
