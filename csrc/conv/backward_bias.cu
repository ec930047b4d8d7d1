// db[k] = the error summed over the batch and all pixels, in two passes of fixed order: each block sums a
// part of the pixels, then blocks of the same kernel sum the parts. Memory is the limit, so a thread has four
// loads of 16 bytes under way.
#include "../common/fast_divide.h"
#include "../common/launch.h"
#include "../common/types.h"
#include "../common/vector.h"
#include "conv.h"
#include "select.h"
#include "views.h"

namespace cnnkernels::conv {

namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 4;  // loads of a thread
constexpr int kLanes = 8;  // threads beside each other along the channels: 128 bytes

template <class T>
constexpr int kRun = 16 / sizeof(T);  // elements of a load

// What is summed, and where sums go: `channels` of each part beside each other, rounded to `out`.
struct Sums {
  std::int64_t channels = 0, plane = 0;  // of `plane` elements of each channel
  std::int64_t count = 0, per_part = 0;  // pixels, or runs of a channel's planes
  FastDivide plane_runs;                 // of one plane
  DType out{};
  bool vectors = false;  // runs are whole and aligned
  std::uint8_t unused[7] = {};
};

// `count` elements of a run exist. In the same places however they are read, so that no bit depends on an
// address.
template <class T>
CNN_DEVICE Vector<T, kRun<T>> read(const T* from, std::int64_t count, bool vectors) {
  if (vectors) return load<kRun<T>>(from);
  Vector<T, kRun<T>> run{};
#pragma unroll
  for (int i = 0; i < kRun<T>; ++i)
    if (i < count) run[i] = from[i];
  return run;
}

// Adds the runs that read_run(i) gives of i = first, first + step and so on below `end`, element by element.
template <class T, class Read>
CNN_DEVICE void add(std::int64_t first, std::int64_t end, int step, Accumulator<T> (&sum)[kRun<T>],
                    Read&& read_run) {
  const auto add_one = [&](const Vector<T, kRun<T>>& run) {
#pragma unroll
    for (int v = 0; v < kRun<T>; ++v) sum[v] += widen(run[v]);
  };
  std::int64_t i = first;
#pragma unroll 1
  for (; i + (kAhead - 1) * step < end; i += kAhead * step) {
    Vector<T, kRun<T>> runs[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) runs[a] = read_run(i + a * step);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) add_one(runs[a]);
  }
#pragma unroll 1
  for (; i < end; i += step) add_one(read_run(i));
}

template <class A>
CNN_DEVICE void store_sum(const Sums& s, void* sums, std::int64_t channel, A sum) {
  const std::int64_t place = blockIdx.y * s.channels + channel;
  if constexpr (std::is_same_v<A, float>) {
    if (s.out == DType::float16) {
      static_cast<float16*>(sums)[place] = narrow<float16>(sum);
      return;
    }
    if (s.out == DType::bfloat16) {
      static_cast<bfloat16*>(sums)[place] = narrow<bfloat16>(sum);
      return;
    }
  }
  static_cast<A*>(sums)[place] = sum;
}

// Adds the upper half of the block's sums to the lower, until `left` threads have all.
template <class A, int kValues>
CNN_DEVICE void add_threads(A* shared, const A (&sum)[kValues], int left) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int v = 0; v < kValues; ++v) shared[v * kThreads + thread] = sum[v];
#pragma unroll 1
  for (int half = kThreads / 2; half >= left; half /= 2) {
    __syncthreads();
    if (thread >= half) continue;
#pragma unroll
    for (int v = 0; v < kValues; ++v) shared[v * kThreads + thread] += shared[v * kThreads + thread + half];
  }
}

// Of channels that lie together (NHWC, and parts): eight threads have 128 bytes of a pixel.
template <class T>
CNN_KERNEL(kThreads, 4)
sum_pixels(const T* error, void* sums, const Sums s) {
  using A = Accumulator<T>;
  CNN_SHARED(A, shared, [kRun<T> * kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t channel = (std::int64_t(blockIdx.x) * kLanes + thread % kLanes) * kRun<T>;
  const std::int64_t begin = blockIdx.y * s.per_part, end = min(s.count, begin + s.per_part);

  A sum[kRun<T>] = {};
  if (channel < s.channels)
    add<T>(begin + thread / kLanes, end, kThreads / kLanes, sum, [&](std::int64_t pixel) {
      return read(error + pixel * s.channels + channel, s.channels - channel, s.vectors);
    });
  add_threads(shared, sum, kLanes);
  if (thread >= kLanes) return;
#pragma unroll
  for (int v = 0; v < kRun<T>; ++v)
    if (channel + v < s.channels) store_sum(s, sums, channel + v, shared[v * kThreads + thread]);
}

// Of channels in planes (NCHW): a block has one channel.
template <class T>
CNN_KERNEL(kThreads, 4)
sum_planes(const T* error, void* sums, const Sums s) {
  using A = Accumulator<T>;
  CNN_SHARED(A, shared, [kThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t begin = blockIdx.y * s.per_part, end = min(s.count, begin + s.per_part);

  A sum[kRun<T>] = {};
  add<T>(begin + thread, end, kThreads, sum, [&](std::int64_t i) {
    std::uint32_t run;
    const std::int64_t image = s.plane_runs.divmod(static_cast<std::uint32_t>(i), run);
    const std::int64_t first = std::int64_t(run) * kRun<T>;
    return read(error + (image * s.channels + blockIdx.x) * s.plane + first, s.plane - first, s.vectors);
  });
  A all[1] = {sum[0]};
#pragma unroll
  for (int v = 1; v < kRun<T>; ++v) all[0] += sum[v];
  add_threads(shared, all, 1);
  if (thread == 0) store_sum(s, sums, blockIdx.x, shared[0]);
}

// How the work is cut: a function of the problem, never of the GPU or of where the error lies.
struct Cut {
  std::int64_t run, count, blocks, parts;  // elements of a load; pixels or runs; blocks of a part

  explicit Cut(const Problem& problem) {
    constexpr std::int64_t kBlocks = 512;  // about four for each processor of a large GPU
    constexpr std::int64_t kShortest = 8;  // loads of a thread
    const ConvGeometry& g = problem.geometry;
    const bool together = problem.layout == Layout::nhwc;
    run = 16 / Element{problem.dtype, problem.tf32}.bytes();
    count = together ? g.n * g.p * g.q : g.n * ceil_div(g.p * g.q, run);
    blocks = together ? ceil_div(g.k, kLanes * run) : g.k;
    const std::int64_t rows = together ? kThreads / kLanes : kThreads;
    parts = std::min(ceil_div(kBlocks, blocks), ceil_div(count, kShortest * rows));
  }
};

template <class T>
void launch_pixels(const void* from, void* sums, Sums s, std::int64_t parts, std::uintptr_t stream) {
  s.per_part = ceil_div(s.count, parts);
  s.vectors = s.channels % kRun<T> == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
  const dim3 grid(static_cast<unsigned>(ceil_div(s.channels, kLanes * kRun<T>)),
                  static_cast<unsigned>(parts));
  launch(sum_pixels<T>, Launch{grid, dim3(kThreads), 0, stream}, static_cast<const T*>(from), sums, s);
}

template <class T>
void launch_planes(const void* from, void* sums, Sums s, std::int64_t parts, std::uintptr_t stream) {
  if (s.count >= std::int64_t(1) << 31)
    throw_invalid_argument("conv2d: the gradient of a bias of more than 2^31 runs of pixels");
  s.per_part = ceil_div(s.count, parts);
  s.vectors = s.plane % kRun<T> == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
  s.plane_runs = FastDivide(ceil_div(s.plane, kRun<T>));
  const dim3 grid(static_cast<unsigned>(s.channels), static_cast<unsigned>(parts));
  launch(sum_planes<T>, Launch{grid, dim3(kThreads), 0, stream}, static_cast<const T*>(from), sums, s);
}

}  // namespace

std::size_t backward_bias_workspace(const Problem& problem) {
  return static_cast<std::size_t>(Cut(problem).parts * problem.geometry.k *
                                  Element{problem.dtype, problem.tf32}.accumulator_bytes());
}

void backward_bias(const Problem& problem, const void* grad_output, void* grad_bias, void* workspace,
                   std::uintptr_t stream) {
  const ConvGeometry& g = problem.geometry;
  const Cut cut(problem);
  dispatch_floating(problem.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    Sums of_parts;
    of_parts.channels = g.k;
    of_parts.out = std::is_same_v<A, float> ? DType::float32 : DType::float64;
    Sums of_error = of_parts;
    of_error.plane = g.p * g.q;
    of_error.count = cut.count;
    if (problem.layout == Layout::nhwc)
      launch_pixels<T>(grad_output, workspace, of_error, cut.parts, stream);
    else
      launch_planes<T>(grad_output, workspace, of_error, cut.parts, stream);
    of_parts.count = cut.parts;
    of_parts.out = problem.dtype;
    launch_pixels<A>(workspace, grad_bias, of_parts, 1, stream);
  });
}

}  // namespace cnnkernels::conv
