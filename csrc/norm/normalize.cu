// x becomes y: one read of x, and of a residual, and one write.
#include "numbers.cuh"

namespace cnnkernels::norm {
namespace {

template <class T, int V>
CNN_KERNEL(kThreads, 3)
normalize_kernel(const Tiling t, const Normalization how, const T* __restrict__ input,
                 const T* __restrict__ residual, T* __restrict__ output) {
  using A = Accumulator<T>;
  Owned own(t);
  const Scaling<A, V> scaled(how, t, own);
  const auto which = static_cast<Activation>(how.activation);
  const A slope = static_cast<A>(double(how.slope));
  own.each<1>(t, [&](std::int64_t offset) {
    const auto x = load<V>(input + offset);
    A z[V];
#pragma unroll
    for (int j = 0; j < V; ++j) z[j] = scaled(widen(x[j]), j);
    if (residual != nullptr) {
      const auto more = load<V>(residual + offset);
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] += widen(more[j]);
    }
    with_activation(which, [&](auto constant) {
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] = activate(decltype(constant)::value, z[j], slope);
    });
    Vector<T, V> y;
#pragma unroll
    for (int j = 0; j < V; ++j) y[j] = narrow<T>(z[j]);
    store(output + offset, y);
  });
}

}  // namespace

void normalize(DType dtype, const Shape& shape, const Normalization& how, const void* input,
               const void* residual, void* output, std::uintptr_t stream) {
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    const auto start = [&](const Tiling& tiling, auto v) {
      launch(&normalize_kernel<T, v>, tiling.launch(stream), tiling, how, static_cast<const T*>(input),
             static_cast<const T*>(residual), static_cast<T*>(output));
    };
    tiled<T>(shape, true, start, static_cast<const char*>(input), static_cast<const char*>(residual),
             static_cast<const char*>(output));
  });
}

std::int64_t workspace(DType dtype, const Shape& shape) {
  return dispatch_floating(dtype, [&](auto t) -> std::int64_t {
    using T = decltype(t);
    const std::int64_t one = Tiling(shape, 1).parts;
    const std::int64_t vectors = in_vectors<T>(shape) ? Tiling(shape, kVector<T>).parts : 0;
    const std::int64_t parts = one > vectors ? one : vectors;
    return (2 * parts + kOfChannels) * shape.channels * std::int64_t(sizeof(Accumulator<T>));
  });
}

}  // namespace cnnkernels::norm
