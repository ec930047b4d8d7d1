// Mean and variance of each channel: one read of x.
//
// A thread sums its elements less the first of them, which bounds what is lost: by as many roundoffs of the
// variance as it has elements, wherever the mean lies. Then means and sums of squares about them are merged
// (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
// 1979).
#include "reduce.cuh"

namespace cnnkernels::norm {
namespace {

// Of n elements the mean, and the sum of the squares of their distances from it.
template <class A>
struct Moments {
  A n, mean, squares;

  CNN_DEVICE void merge(const Moments& other) {
    if (other.n == A(0)) return;
    if (n == A(0)) {
      *this = other;
      return;
    }
    const A all = n + other.n, apart = other.mean - mean, share = other.n / all;
    mean = multiply_add(apart, share, mean);
    squares += other.squares + apart * apart * n * share;
    n = all;
  }
};

template <class T, int V>
CNN_KERNEL(kThreads, 3)
statistics_kernel(const Tiling t, const T* __restrict__ input, Accumulator<T>* __restrict__ means,
                  Accumulator<T>* __restrict__ squares) {
  using A = Accumulator<T>;
  Owned own(t);
  A first[V] = {}, sum[V] = {}, square[V] = {};
  if (own.count > 0) {
    const auto x = load<V>(input + own.offset);
#pragma unroll
    for (int j = 0; j < V; ++j) first[j] = widen(x[j]);
  }
  own.each<4>(t, [&](std::int64_t offset) {
    const auto x = load<V>(input + offset);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const A moved = widen(x[j]) - first[j];
      sum[j] += moved;
      square[j] = multiply_add(moved, moved, square[j]);
    }
  });
  const auto n = static_cast<A>(own.count);
  Moments<A> moments[V];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const A moved = own.count > 0 ? sum[j] / n : A(0), rest = multiply_add(-sum[j], moved, square[j]);
    moments[j] = {n, first[j] + moved, rest < A(0) ? A(0) : rest};  // NaN stays
  }
  merge_block(t, own, moments);
  if (own.place != 0 || own.group >= t.groups) return;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (j > 0 && t.adjacent == 0) break;
    means[own.part * t.channels + own.channel(t, j)] = moments[j].mean;
    squares[own.part * t.channels + own.channel(t, j)] = moments[j].squares;
  }
}

// `length` elements in each part but the last, `count` in all.
template <class A>
CNN_KERNEL(kThreads, 4)
merge_statistics_kernel(std::int64_t channels, std::int64_t parts, std::int64_t length, std::int64_t count,
                        const A* __restrict__ means, const A* __restrict__ squares, A* __restrict__ mean,
                        A* __restrict__ var, const Numbers running_mean, const Numbers running_var,
                        const AsBits<double> momentum) {
  const std::int64_t c = std::int64_t(blockIdx.x) * kChannels + threadIdx.x % kChannels;
  const std::int64_t slice = threadIdx.x / kChannels, end = c < channels ? parts : 0;
  const auto elements = [&](std::int64_t part) {
    return static_cast<A>(part + 1 < parts ? length : count - (parts - 1) * length);
  };
  const A n = static_cast<A>(count), origin = c < channels ? means[c] : A(0);
  A sum = 0;
#pragma unroll 4
  for (std::int64_t part = slice; part < end; part += kSlices)
    sum = multiply_add(means[part * channels + c] - origin, elements(part), sum);
  const A center = origin + add_slices(sum) / n;
  sum = 0;
#pragma unroll 4
  for (std::int64_t part = slice; part < end; part += kSlices) {
    const A apart = means[part * channels + c] - center;
    sum += multiply_add(apart * apart, elements(part), squares[part * channels + c]);
  }
  const A all = add_slices(sum);
  if (slice != 0 || c >= channels) return;
  mean[c] = center;
  var[c] = all / n;
  const A step = static_cast<A>(double(momentum)), kept = static_cast<A>(1 - double(momentum));
  write(running_mean, c, kept * number<A>(running_mean, c, 0) + step * center);
  write(running_var, c, kept * number<A>(running_var, c, 0) + step * (all / static_cast<A>(count - 1)));
}

}  // namespace

void statistics(DType dtype, const Shape& shape, const void* input, void* mean, void* var,
                const Numbers& running_mean, const Numbers& running_var, double momentum, void* workspace,
                std::uintptr_t stream) {
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    using A = Accumulator<T>;
    const auto start = [&](const Tiling& tiling, auto v) {
      auto* means = static_cast<A*>(workspace);
      auto* squares = means + tiling.parts * tiling.channels;
      launch(&statistics_kernel<T, v>, tiling.launch(stream), tiling, static_cast<const T*>(input), means,
             squares);
      const std::int64_t lanes = tiling.adjacent != 0 ? 1 : std::int64_t(v);
      launch(&merge_statistics_kernel<A>, launch_channels(shape.channels, stream), shape.channels,
             tiling.parts, tiling.length * lanes, shape.outer * shape.inner, means, squares,
             static_cast<A*>(mean), static_cast<A*>(var), running_mean, running_var,
             AsBits<double>(momentum));
    };
    tiled<T>(shape, true, start, static_cast<const char*>(input));
  });
}

}  // namespace cnnkernels::norm
