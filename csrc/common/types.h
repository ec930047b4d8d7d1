// Element types: 16-bit floats as storage, and what each type is computed in.
#pragma once

#include "../ptx/convert.cuh"
#include "device.h"
#include "errors.h"

namespace cnnkernels {

// Python has the same numbers in its table.
enum class DType : int {
  float64 = 0,
  float32 = 1,
  float16 = 2,
  bfloat16 = 3,
  int8 = 4,
  uint8 = 5,
  uint16 = 6,
  int32 = 7,
  int64 = 8
};

// The type sums are kept in.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

CNN_HOST_DEVICE double widen(double x) { return x; }
CNN_HOST_DEVICE float widen(float x) { return x; }
CNN_HOST_DEVICE float widen(float16 x) { return float16_to_float(x); }
CNN_HOST_DEVICE float widen(bfloat16 x) { return bfloat16_to_float(x); }

// Rounds to nearest even into the storage type.
template <class T>
CNN_HOST_DEVICE T narrow(Accumulator<T> x);
template <>
CNN_HOST_DEVICE double narrow<double>(double x) {
  return x;
}
template <>
CNN_HOST_DEVICE float narrow<float>(float x) {
  return x;
}
template <>
CNN_HOST_DEVICE float16 narrow<float16>(float x) {
  return float_to_float16(x);
}
template <>
CNN_HOST_DEVICE bfloat16 narrow<bfloat16>(float x) {
  return float_to_bfloat16(x);
}

// a b + c, rounded once.
CNN_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
CNN_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// Calls body(T{}) with the C++ type of a floating dtype.
template <class Body>
auto dispatch_floating(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::float64:
      return body(double{});
    case DType::float32:
      return body(float{});
    case DType::float16:
      return body(float16{});
    case DType::bfloat16:
      return body(bfloat16{});
    default:
      throw_invalid_argument("expected float64, float32, float16 or bfloat16");
  }
}

}  // namespace cnnkernels
