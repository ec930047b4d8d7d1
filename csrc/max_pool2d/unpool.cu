// max_unpool2d: values go back to where their indices say, zeros elsewhere.
//
// Two windows may name one element. The scatter therefore moves positions, not values: an integer atomicMax
// keeps the last window's, whatever order the threads run in, and a gather then fetches that window's value.
#include "max_pool2d.h"

#include "../common/types.h"
#include "spread.h"

namespace cnnkernels {
namespace {

// One thread an element of indices [images, p, q, channels]; winner [images, pixels, channels].
template <class Sites, class Index = typename Sites::Offset>
CNN_KERNEL(kThreads, kBlocks<Index>)
max_unpool2d_scatter_kernel(const Sites sites, Index pixels, const std::int64_t* __restrict__ indices,
                            std::int32_t* __restrict__ winner) {
  constexpr int V = Sites::kLanes;
  const Index i = thread_index<Index>();
  if (i >= sites.count) return;
  const Site<Index> at = sites[i];
  const auto lanes = sites.lanes(at);
  const Index channels = sites.channels.divisor(), image = pixels * channels;
  const auto position = static_cast<std::int32_t>(at.row * sites.columns.divisor() + at.column + 1);

  const Vector<std::int64_t, V> index = lanes.load(indices, sites.offset(at), sites.image());
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (j > lanes.last || index[j] < 0 || index[j] >= pixels) continue;
    const Index pixel = at.image * pixels + static_cast<Index>(index[j]);
    atomicMax(&winner[pixel * channels + at.channel + lanes.step(j, image)], position);
  }
}

// One thread a site of output [images, h, w, channels]; `positions` p * q of input. An element without a
// winner is 0.
template <class T, class Sites, class Index = typename Sites::Offset>
CNN_KERNEL(kThreads, kBlocks<Index>)
max_unpool2d_forward_kernel(const Sites sites, Index positions, const T* __restrict__ input,
                            const std::int32_t* __restrict__ winner, T* __restrict__ output) {
  constexpr int V = Sites::kLanes;
  const Index i = thread_index<Index>();
  if (i >= sites.count) return;
  const Site<Index> at = sites[i];
  const auto lanes = sites.lanes(at);
  const Index channels = sites.channels.divisor(), image = positions * channels;

  const Vector<std::int32_t, V> position = lanes.load(winner, sites.offset(at), sites.image());
  Vector<T, V> values;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const Index from = at.image * positions + position[j] - 1;
    values[j] = position[j] > 0 ? input[from * channels + at.channel + lanes.step(j, image)] : narrow<T>(0);
  }
  lanes.store(output, sites.offset(at), sites.image(), values);
}

// One thread a site of grad_input [images, p, q, channels]; grad_output [images, pixels, channels].
template <class T, class Sites, class Index = typename Sites::Offset>
CNN_KERNEL(kThreads, kBlocks<Index>)
max_unpool2d_backward_kernel(const Sites sites, Index pixels, const T* __restrict__ grad_output,
                             const std::int64_t* __restrict__ indices, T* __restrict__ grad_input) {
  constexpr int V = Sites::kLanes;
  const Index i = thread_index<Index>();
  if (i >= sites.count) return;
  const Site<Index> at = sites[i];
  const auto lanes = sites.lanes(at);
  const Index channels = sites.channels.divisor(), image = pixels * channels;

  const Vector<std::int64_t, V> index = lanes.load(indices, sites.offset(at), sites.image());
  Vector<T, V> values;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const bool inside = index[j] >= 0 && index[j] < pixels;
    const Index pixel = at.image * pixels + static_cast<Index>(index[j]);
    values[j] = inside ? grad_output[pixel * channels + at.channel + lanes.step(j, image)] : narrow<T>(0);
  }
  lanes.store(grad_input, sites.offset(at), sites.image(), values);
}

// An unpooling as the kernels see it: N * C images of one channel for NCHW.
struct Unpool {
  Batch batch;
  std::int64_t pixels, positions, output_image, input_image;

  Unpool(const Unpool2dGeometry& g, Layout layout, std::int64_t largest_index)
      : pixels(g.h * g.w), positions(g.p * g.q) {
    if (positions >= INT32_MAX)
      throw std::invalid_argument("max_unpool2d: an input plane of more than 2^31 - 2 elements");
    const std::int64_t channels = layout == Layout::nhwc ? g.c : 1;
    output_image = pixels * channels;
    input_image = positions * channels;
    batch = {layout == Layout::nhwc ? g.n : g.n * g.c, channels,
             output_image > input_image ? output_image : input_image, true, largest_index};
  }
};

}  // namespace

void max_unpool2d_forward(DType dtype, const Unpool2dGeometry& g, Layout layout, const void* input,
                          const std::int64_t* indices, std::int32_t* winner, void* output,
                          std::uintptr_t stream, std::int64_t largest_index) {
  const Unpool unpool(g, layout, largest_index);
  unpool.batch.spread_over_images(g.p, g.q, [&](const auto& sites, std::int64_t first) {
    using Sites = std::decay_t<decltype(sites)>;
    launch(&max_unpool2d_scatter_kernel<Sites>, over(sites.count, stream), sites,
           static_cast<typename Sites::Offset>(unpool.pixels), indices + first * unpool.input_image,
           winner + first * unpool.output_image);
  });
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto* x = static_cast<const T*>(input);
    auto* y = static_cast<T*>(output);
    const auto slice = [&](const auto& sites, std::int64_t first) {
      using Sites = std::decay_t<decltype(sites)>;
      launch(&max_unpool2d_forward_kernel<T, Sites>, over(sites.count, stream), sites,
             static_cast<typename Sites::Offset>(unpool.positions), x + first * unpool.input_image,
             static_cast<const std::int32_t*>(winner) + first * unpool.output_image,
             y + first * unpool.output_image);
    };
    unpool.batch.spread<kVector<T>>(g.h, g.w, slice, winner, y);
  });
}

void max_unpool2d_backward(DType dtype, const Unpool2dGeometry& g, Layout layout, const void* grad_output,
                           const std::int64_t* indices, void* grad_input, std::uintptr_t stream,
                           std::int64_t largest_index) {
  const Unpool unpool(g, layout, largest_index);
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto* dy = static_cast<const T*>(grad_output);
    auto* dx = static_cast<T*>(grad_input);
    const auto slice = [&](const auto& sites, std::int64_t first) {
      using Sites = std::decay_t<decltype(sites)>;
      launch(&max_unpool2d_backward_kernel<T, Sites>, over(sites.count, stream), sites,
             static_cast<typename Sites::Offset>(unpool.pixels), dy + first * unpool.output_image,
             indices + first * unpool.input_image, dx + first * unpool.input_image);
    };
    unpool.batch.spread<kVector<T>>(g.p, g.q, slice, indices, dx);
  });
}

}  // namespace cnnkernels
