// The gradients of a normalization, and what its derivatives of any order are made of.
//
//   g = activation'(z) grad_output          grad_residual = g
//   grad_bias = S1 = sum of g               grad_weight = r S2,   S2 = sum of g (x - mean),   r = 1 /
//   sqrt(var + eps) grad_input = w r g - w r^3 S2 / n (x - mean) - w r S1 / n     in training, else w r g
//
// z, which y was before the activation, is computed anew as the forward did. Two passes: one for the sums,
// which writes g where a residual wants it, and one for grad_input.
#include "reduce.cuh"

namespace cnnkernels::norm {
namespace {

template <class T>
struct Images {
  const T *grad, *input, *residual, *output;
};

// Activations whose derivative is a number or another: all that kernels of vectors know. Code of the others
// is long, and eight times as long for eight lanes.
constexpr bool is_gate(std::int64_t activation) { return activation <= std::int64_t(Activation::leaky_relu); }

// g of V lanes, rounded as the tensor between two layers would be.
template <class T, int V>
struct Slopes {
  using A = Accumulator<T>;
  Scaling<A, V> scaled;
  Activation which;
  A slope;

  CNN_DEVICE Slopes(const Normalization& how, const Tiling& t, const Owned& own)
      : scaled(how, t, own),
        which(static_cast<Activation>(how.activation)),
        slope(static_cast<A>(double(how.slope))) {}

  CNN_DEVICE void apply(A (&g)[V], const Vector<T, V>& x, const Images<T>& images,
                        std::int64_t offset) const {
    A z[V];
    if (images.output != nullptr) {
      const auto y = load<V>(images.output + offset);
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] = widen(y[j]);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] = scaled(widen(x[j]), j);
      if (images.residual != nullptr) {
        const auto more = load<V>(images.residual + offset);
#pragma unroll
        for (int j = 0; j < V; ++j) z[j] += widen(more[j]);
      }
      // What rounds to 0 is 0 to its activation.
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] = widen(narrow<T>(z[j]));
    }
    // Not a product where the derivative is 0: an infinite gradient passes no closed gate.
    if constexpr (V > 1) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const bool below = which == Activation::leaky_relu ? !(z[j] > A(0)) : z[j] <= A(0);
        if (below) g[j] = which == Activation::leaky_relu ? widen(narrow<T>(g[j] * slope)) : A(0);
        if (which == Activation::relu6 && z[j] >= A(6)) g[j] = A(0);
      }
    } else {
      const A by = activate_derivative(which, z[0], slope);
      g[0] = by == A(0) ? A(0) : widen(narrow<T>(g[0] * by));
    }
  }
};

template <class A>
struct Sums {
  A first, second;
  CNN_DEVICE void merge(const Sums& other) { first += other.first, second += other.second; }
};

// Of g and g (x - center), which is how.mean.
template <class T, int V>
CNN_KERNEL(kThreads, 2)
sums_kernel(const Tiling t, const Normalization how, const Images<T> images, T* __restrict__ grad_residual,
            Accumulator<T>* __restrict__ parts) {
  using A = Accumulator<T>;
  Owned own(t);
  const Slopes<T, V> slopes(how, t, own);
  Sums<A> sums[V];
#pragma unroll
  for (int j = 0; j < V; ++j) sums[j] = {A(0), A(0)};
  own.each<1>(t, [&](std::int64_t offset) {
    const auto grad = load<V>(images.grad + offset), x = load<V>(images.input + offset);
    A g[V];
#pragma unroll
    for (int j = 0; j < V; ++j) g[j] = widen(grad[j]);
    if (slopes.which != Activation::none) slopes.apply(g, x, images, offset);
    if (grad_residual != nullptr) {
      Vector<T, V> rounded;
#pragma unroll
      for (int j = 0; j < V; ++j) rounded[j] = narrow<T>(g[j]);
      store(grad_residual + offset, rounded);
    }
#pragma unroll
    for (int j = 0; j < V; ++j) {
      sums[j].first += g[j];
      sums[j].second = multiply_add(g[j], widen(x[j]) - slopes.scaled.mean[j], sums[j].second);
    }
  });
  merge_block(t, own, sums);
  if (own.place != 0 || own.group >= t.groups) return;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (j > 0 && t.adjacent == 0) break;
    parts[own.part * t.channels + own.channel(t, j)] = sums[j].first;
    parts[(t.parts + own.part) * t.channels + own.channel(t, j)] = sums[j].second;
  }
}

// What the sums become: null where it is not wanted. gamma, delta and alpha are combine's.
template <class A>
struct Sunk {
  A *first, *second;
  A *gamma, *delta, *alpha;
  Numbers grad_weight, grad_bias;
};

// `count` parts of n elements; none in an evaluation whose sums nobody wants.
template <class A>
CNN_KERNEL(kThreads, 4)
add_sums_kernel(std::int64_t channels, std::int64_t count, std::int64_t training, const A* __restrict__ parts,
                const Normalization how, std::int64_t n, const Sunk<A> results) {
  const std::int64_t c = std::int64_t(blockIdx.x) * kChannels + threadIdx.x % kChannels;
  const std::int64_t slice = threadIdx.x / kChannels, end = c < channels ? count : 0;
  A first = 0, second = 0;
#pragma unroll 4
  for (std::int64_t part = slice; part < end; part += kSlices) {
    first += parts[part * channels + c];
    second += parts[(count + part) * channels + c];
  }
  first = add_slices(first);
  second = add_slices(second);
  if (slice != 0 || c >= channels) return;
  if (results.first != nullptr) results.first[c] = first, results.second[c] = second;
  if (how.var.at == nullptr) return;
  const A inverse = inverse_deviation<A>(how, c), scale = wide<A>(how.weight, c, 1) * inverse;
  write(results.grad_weight, c, second * inverse);
  write(results.grad_bias, c, first);
  if (results.alpha == nullptr) return;
  results.alpha[c] = scale;
  if (training == 0) return;
  results.gamma[c] = -scale * inverse * (inverse * second / static_cast<A>(n));
  results.delta[c] = -scale * (first / static_cast<A>(n));
}

template <class A>
struct Factors {
  const A *gamma, *center, *delta, *alpha, *beta;
};

template <class A, int V>
CNN_DEVICE void read(A (&numbers)[V], const A* from, const Tiling& t, const Owned& own) {
#pragma unroll
  for (int j = 0; j < V; ++j)
    numbers[j] = from != nullptr && own.group < t.groups ? from[own.channel(t, j)] : A(0);
}

// a is images.grad, x images.input.
template <class T, int V>
CNN_KERNEL(kThreads, 2)
combine_kernel(const Tiling t, const Normalization how, const Images<T> images, const T* __restrict__ b,
               const Factors<Accumulator<T>> factors, T* __restrict__ result) {
  using A = Accumulator<T>;
  Owned own(t);
  const Slopes<T, V> slopes(how, t, own);
  A gamma[V], center[V], delta[V], alpha[V], beta[V];
  read(gamma, factors.gamma, t, own), read(center, factors.center, t, own),
      read(delta, factors.delta, t, own);
  read(alpha, factors.alpha, t, own), read(beta, factors.beta, t, own);
  own.each<1>(t, [&](std::int64_t offset) {
    A sum[V], g[V];
    Vector<T, V> x{};
    if (images.input != nullptr) x = load<V>(images.input + offset);
#pragma unroll
    for (int j = 0; j < V; ++j)
      sum[j] =
          factors.gamma == nullptr ? delta[j] : multiply_add(widen(x[j]) - center[j], gamma[j], delta[j]);
    if (images.grad != nullptr) {
      const auto grad = load<V>(images.grad + offset);
#pragma unroll
      for (int j = 0; j < V; ++j) g[j] = widen(grad[j]);
      if (slopes.which != Activation::none) slopes.apply(g, x, images, offset);
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] = multiply_add(g[j], alpha[j], sum[j]);
    }
    if (b != nullptr) {
      const auto more = load<V>(b + offset);
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] = multiply_add(widen(more[j]), beta[j], sum[j]);
    }
    Vector<T, V> rounded;
#pragma unroll
    for (int j = 0; j < V; ++j) rounded[j] = narrow<T>(sum[j]);
    store(result + offset, rounded);
  });
}

const char* bytes(const void* image) { return static_cast<const char*>(image); }

template <class T>
void add_up(const Shape& shape, const Normalization& how, const Images<T>& images, T* grad_residual,
            bool training, const Sunk<Accumulator<T>>& results, Accumulator<T>* parts,
            std::uintptr_t stream) {
  using A = Accumulator<T>;
  const auto start = [&](const Tiling& tiling, auto v) {
    launch(&sums_kernel<T, v>, tiling.launch(stream), tiling, how, images, grad_residual, parts);
    launch(&add_sums_kernel<A>, launch_channels(shape.channels, stream), shape.channels, tiling.parts,
           std::int64_t(training), static_cast<const A*>(parts), how, shape.outer * shape.inner, results);
  };
  tiled<T>(shape, is_gate(how.activation), start, bytes(images.grad), bytes(images.input),
           bytes(images.residual), bytes(images.output), bytes(grad_residual));
}

template <class T>
void combine_images(const Shape& shape, const Normalization& how, const Images<T>& images, const T* b,
                    const Factors<Accumulator<T>>& factors, T* result, std::uintptr_t stream) {
  const auto start = [&](const Tiling& tiling, auto v) {
    launch(&combine_kernel<T, v>, tiling.launch(stream), tiling, how, images, b, factors, result);
  };
  tiled<T>(shape, is_gate(how.activation), start, bytes(images.grad), bytes(images.input),
           bytes(images.residual), bytes(images.output), bytes(b), bytes(result));
}

}  // namespace

void backward(DType dtype, const Shape& shape, const Normalization& how, bool training,
              const Gradients& tensors, void* workspace, std::uintptr_t stream) {
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    using A = Accumulator<T>;
    Images<T> images{static_cast<const T*>(tensors.grad_output), static_cast<const T*>(tensors.input),
                     static_cast<const T*>(tensors.residual), static_cast<const T*>(tensors.output)};
    auto* grad_residual = static_cast<T*>(tensors.grad_residual);
    auto* numbers = static_cast<A*>(workspace);
    auto* parts = numbers + kOfChannels * shape.channels;
    const bool of_input = tensors.grad_input != nullptr;
    A* const alpha = of_input ? numbers : nullptr;
    A* const gamma = numbers + shape.channels;
    A* const delta = numbers + 2 * shape.channels;
    const Sunk<A> results{nullptr, nullptr, gamma, delta, alpha, tensors.grad_weight, tensors.grad_bias};
    const bool wanted = tensors.grad_weight.at != nullptr || tensors.grad_bias.at != nullptr;
    if (training || wanted || grad_residual != nullptr)
      add_up(shape, how, images, grad_residual, training, results, parts, stream);
    else
      launch(&add_sums_kernel<A>, launch_channels(shape.channels, stream), shape.channels, std::int64_t(0),
             std::int64_t(0), static_cast<const A*>(parts), how, std::int64_t(1), results);
    if (!of_input) return;
    Normalization rest = how;
    if (grad_residual != nullptr) {  // it is g
      images.grad = grad_residual;
      rest.activation = 0;
    }
    const Factors<A> factors =
        training ? Factors<A>{gamma, static_cast<const A*>(how.mean.at), delta, alpha, nullptr}
                 : Factors<A>{nullptr, nullptr, nullptr, alpha, nullptr};
    combine_images<T>(shape, rest, images, nullptr, factors, static_cast<T*>(tensors.grad_input), stream);
  });
}

void sums(DType dtype, const Shape& shape, const void* a, const void* b, const void* center, void* sums,
          void* workspace, std::uintptr_t stream) {
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    using A = Accumulator<T>;
    Normalization how;
    how.mean = {const_cast<void*>(center), std::int64_t(sizeof(A) == 8 ? DType::float64 : DType::float32)};
    auto* result = static_cast<A*>(sums);
    const Sunk<A> results{result, result + shape.channels, nullptr, nullptr, nullptr, {}, {}};
    add_up<T>(shape, how, {static_cast<const T*>(a), static_cast<const T*>(b), nullptr, nullptr}, nullptr,
              false, results, static_cast<A*>(workspace), stream);
  });
}

void combine(DType dtype, const Shape& shape, const Coefficients& numbers, const void* x, const void* a,
             const void* b, void* result, std::uintptr_t stream) {
  dispatch_floating(dtype, [&](auto t) {
    using T = decltype(t);
    using A = Accumulator<T>;
    const auto factor = [](const void* number) { return static_cast<const A*>(number); };
    combine_images<T>(shape, {}, {static_cast<const T*>(a), static_cast<const T*>(x), nullptr, nullptr},
                      static_cast<const T*>(b),
                      {factor(numbers.gamma), factor(numbers.center), factor(numbers.delta),
                       factor(numbers.alpha), factor(numbers.beta)},
                      static_cast<T*>(result), stream);
  });
}

}  // namespace cnnkernels::norm
