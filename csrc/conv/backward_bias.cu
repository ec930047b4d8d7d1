// db[k] = the error summed over the batch and all pixels, in two passes of fixed order: each block sums a
// part of the pixels, then the parts are added one after another.
#include "../gemm/add_parts.h"
#include "../common/launch.h"
#include "conv.h"
#include "select.h"
#include "views.h"

namespace cnnkernels::conv {

namespace {

constexpr int kThreads = 256;

struct Sums {
  std::int64_t channels, channel_stride, pixels, pixels_per_part;
  Axis pixel;  // of the whole batch
};

// Neighbouring threads read neighbouring memory: Channels = 32 of one pixel (NHWC) or 1, and so 256 pixels
// (NCHW).
template <class T, int Channels>
CNN_KERNEL(kThreads, 1)
sum_pixels(const T* grad_output, Accumulator<T>* parts, const Sums sums) {
  constexpr int kPixels = kThreads / Channels;
  CNN_SHARED(Accumulator<T>, shared, [kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t channel = std::int64_t(blockIdx.x) * Channels + thread % Channels;
  const std::int64_t part = blockIdx.y;
  const std::int64_t begin = part * sums.pixels_per_part;
  const std::int64_t end = min(sums.pixels, begin + sums.pixels_per_part);

  Accumulator<T> sum = 0;
  if (channel < sums.channels) {
    const std::int64_t first = begin + thread / Channels;
    Cursor cursor = seek(sums.pixel, first);
    for (std::int64_t pixel = first; pixel < end; pixel += kPixels) {
      sum += widen(grad_output[channel * sums.channel_stride + cursor.place.offset]);
      step(sums.pixel, cursor, kPixels);
    }
  }
  shared[thread] = sum;
  __syncthreads();
#pragma unroll
  for (int half = kThreads / 2; half >= Channels; half /= 2) {
    if (thread < half) shared[thread] += shared[thread + half];
    __syncthreads();
  }
  if (thread < Channels && channel < sums.channels) parts[part * sums.channels + channel] = shared[thread];
}

// Enough blocks to fill a GPU, parts long enough to be worth a block, and few enough to be added by one
// thread.
std::int64_t parts_of(const Problem& problem) {
  constexpr std::int64_t kShortest = 1024, kMost = 128;
  const ConvGeometry& g = problem.geometry;
  return std::min(kMost, ceil_div(g.n * g.p * g.q, kShortest));
}

}  // namespace

std::size_t backward_bias_workspace(const Problem& problem) {
  return static_cast<std::size_t>(parts_of(problem) * problem.geometry.k *
                                  Element{problem.dtype, problem.tf32}.accumulator_bytes());
}

void backward_bias(const Problem& problem, const void* grad_output, void* grad_bias, void* workspace,
                   std::uintptr_t stream) {
  const ConvGeometry& g = problem.geometry;
  const Strides dy = strides(problem.layout, g.k, g.p, g.q);
  const std::int64_t parts = parts_of(problem), pixels = g.n * g.p * g.q;
  const Sums sums{g.k, dy.c, pixels, ceil_div(pixels, parts), Axis{{g.q, dy.w}, {g.p, dy.h}, {g.n, dy.n}}};
  dispatch_floating(problem.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto sum = [&](auto kernel, int channels) {
      const dim3 grid(static_cast<unsigned>(ceil_div(g.k, channels)), static_cast<unsigned>(parts));
      launch(kernel, Launch{grid, dim3(kThreads), 0, stream}, static_cast<const T*>(grad_output),
             static_cast<Accumulator<T>*>(workspace), sums);
    };
    if (problem.layout == Layout::nhwc) {
      sum(sum_pixels<T, 32>, 32);
    } else {
      sum(sum_pixels<T, 1>, 1);
    }
  });
  gemm::add_parts(problem.dtype, workspace, grad_bias, g.k, static_cast<int>(parts), stream);
}

}  // namespace cnnkernels::conv
