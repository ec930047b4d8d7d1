// Numbers of channels. What kernels of images read is of A: eight lanes of four numbers of any type would be
// most of their code. What is written once a channel is of any type, known at run time.
#pragma once

#include "../common/activation.h"
#include "../common/vector.h"
#include "tiling.h"

namespace cnnkernels::norm {

template <class A>
CNN_DEVICE A number(const Numbers& numbers, std::int64_t i, A otherwise) {
  if (numbers.at == nullptr) return otherwise;
  switch (static_cast<DType>(numbers.dtype)) {
    case DType::float64:
      return static_cast<A>(static_cast<const double*>(numbers.at)[i]);
    case DType::float16:
      return static_cast<A>(widen(static_cast<const float16*>(numbers.at)[i]));
    case DType::bfloat16:
      return static_cast<A>(widen(static_cast<const bfloat16*>(numbers.at)[i]));
    default:
      return static_cast<A>(static_cast<const float*>(numbers.at)[i]);
  }
}

template <class A>
CNN_DEVICE void write(const Numbers& numbers, std::int64_t i, A value) {
  if (numbers.at == nullptr) return;
  switch (static_cast<DType>(numbers.dtype)) {
    case DType::float64:
      static_cast<double*>(numbers.at)[i] = static_cast<double>(value);
      return;
    case DType::float16:
      static_cast<float16*>(numbers.at)[i] = narrow<float16>(static_cast<float>(value));
      return;
    case DType::bfloat16:
      static_cast<bfloat16*>(numbers.at)[i] = narrow<bfloat16>(static_cast<float>(value));
      return;
    default:
      static_cast<float*>(numbers.at)[i] = static_cast<float>(value);
  }
}

// One that is of A, whatever its dtype says.
template <class A>
CNN_DEVICE A wide(const Numbers& numbers, std::int64_t i, A otherwise) {
  return numbers.at == nullptr ? otherwise : static_cast<const A*>(numbers.at)[i];
}

// 1 / sqrt(var + eps).
template <class A>
CNN_DEVICE A inverse_deviation(const Normalization& how, std::int64_t channel) {
  return A(1) / std::sqrt(wide<A>(how.var, channel, 1) + static_cast<A>(double(how.eps)));
}

// What a thread's V lanes are normalized by.
template <class A, int V>
struct Scaling {
  A mean[V], scale[V], bias[V];

  CNN_DEVICE Scaling(const Normalization& how, const Tiling& t, const Owned& own) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const std::int64_t c = own.group < t.groups ? own.channel(t, j) : 0;
      mean[j] = wide<A>(how.mean, c, 0);
      scale[j] = wide<A>(how.weight, c, 1) * inverse_deviation<A>(how, c);
      bias[j] = wide<A>(how.bias, c, 0);
    }
  }
  CNN_DEVICE A operator()(A x, int j) const { return multiply_add(x - mean[j], scale[j], bias[j]); }
};

}  // namespace cnnkernels::norm
