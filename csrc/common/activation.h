// The activations a kernel may apply to a sum before it is stored, and their derivatives at the
// pre-activation. Which one is a number at run time: it is looked at once an output, beside thousands of
// multiply-adds, and a template of it would multiply the number of kernels by seven. The names are
// cnnkernels/activation.py's, in its order; values are PyTorch's, at NaN and the infinities too.
#pragma once

#include <cmath>
#include <type_traits>

#include "activation_kind.h"
#include "device.h"
#include "../ptx/extremes.cuh"

namespace cnnkernels {

#if defined(__CUDA_ARCH__)

// nvcc's own division heeds, in a way of its own for each output, divisors that cannot come here. Rounded to
// nearest as it is (Markstein's: a quotient by the reciprocal, and what it lacks).
CNN_DEVICE float sixth(float x) {
  constexpr float kSixth = 1.0f / 6.0f;
  const float quotient = x * kSixth, lacking = __fmaf_rn(-6.0f, quotient, x);
  return lacking == lacking ? __fmaf_rn(lacking, kSixth, quotient) : quotient;  // infinities stay
}
// By at least 1, within 2 ulp.
CNN_DEVICE float over(float x, float by) { return __fdividef(x, by); }

#endif

template <class T>
CNN_DEVICE T sixth(T x) {
  return x / T(6);
}
template <class T>
CNN_DEVICE T over(T x, T by) {
  return x / by;
}

// T is float or double. slope: leaky_relu's factor below zero; the others take no notice of it.
template <class T>
CNN_DEVICE T activate(Activation which, T x, T slope) {
  constexpr T kRootHalf = T(0.70710678118654752440);
  switch (which) {
    case Activation::none:
      return x;
    case Activation::relu:
      return at_least(x, T(0));
    case Activation::relu6:
      return at_most(at_least(x, T(0)), T(6));
    case Activation::leaky_relu:
      return x > T(0) ? x : x * slope;
    case Activation::silu:
      return over(x, T(1) + std::exp(-x));
    case Activation::gelu:  // x times the normal distribution's cdf; the exact one, not tanh's approximation
      return T(0.5) * x * (T(1) + std::erf(x * kRootHalf));
    case Activation::hardswish:
      return sixth(x * at_most(at_least(x + T(3), T(0)), T(6)));
  }
  return x;
}

// Where the function has a corner (0, 6, -3, 3) the derivative is the one PyTorch takes.
template <class T>
CNN_DEVICE T activate_derivative(Activation which, T x, T slope) {
  constexpr T kRootHalf = T(0.70710678118654752440), kDensityAtZero = T(0.39894228040143267794);
  switch (which) {
    case Activation::none:
      return T(1);
    case Activation::relu:
      return x <= T(0) ? T(0) : T(1);
    case Activation::relu6:
      return x <= T(0) || x >= T(6) ? T(0) : T(1);
    case Activation::leaky_relu:
      return x > T(0) ? T(1) : slope;
    case Activation::silu: {
      const T sigmoid = over(T(1), T(1) + std::exp(-x));
      return sigmoid * (T(1) + x * (T(1) - sigmoid));
    }
    case Activation::gelu: {
      const T cdf = T(0.5) * (T(1) + std::erf(x * kRootHalf));
      return cdf + x * kDensityAtZero * std::exp(T(-0.5) * x * x);
    }
    case Activation::hardswish:
      return x <= T(-3) ? T(0) : x < T(3) ? sixth(x + x) + T(0.5) : T(1);
  }
  return T(1);
}

// Calls body with the activation as a compile-time constant, not at all for none: the switch then stands
// outside of body's loops.
template <class Body>
CNN_DEVICE void with_activation(Activation which, Body&& body) {
  switch (which) {
    case Activation::none:
      return;
    case Activation::relu:
      return body(std::integral_constant<Activation, Activation::relu>{});
    case Activation::relu6:
      return body(std::integral_constant<Activation, Activation::relu6>{});
    case Activation::leaky_relu:
      return body(std::integral_constant<Activation, Activation::leaky_relu>{});
    case Activation::silu:
      return body(std::integral_constant<Activation, Activation::silu>{});
    case Activation::gelu:
      return body(std::integral_constant<Activation, Activation::gelu>{});
    case Activation::hardswish:
      return body(std::integral_constant<Activation, Activation::hardswish>{});
  }
}

}  // namespace cnnkernels
