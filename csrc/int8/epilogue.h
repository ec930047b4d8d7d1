// What becomes of an INT8 product's integer sums before they are stored, in plain C++ for launchers and
// bindings. int8/epilogue.cuh does it.
//
//   acc = sum_k (a - zero_point_a) (b - zero_point_b), exact modulo 2^32, from sum_k a b and the operands'
//   sums x = float(acc) * (scale_a * scale_b) x = x + bias x = x + residual            of int8 and uint8:
//   float(residual - zero point) * scale x = activation(x) output = x rounded, or for int8 and uint8
//   clamp(rint(x * (1 / out_scale)) + out_zero_point), NaN giving
//            out_zero_point
//
// Every operation in fp32 is rounded by itself, so that each backend gives the same bits. int32 outputs are
// acc.
#pragma once

#include <cstdint>

#include "../common/activation_kind.h"
#include "../common/as_bits.h"

namespace cnnkernels {
enum class DType : int;  // common/types.h
}

namespace cnnkernels::int8 {

// A number known on the host, or where `data` is given one in device memory: the same for every row or column
// (step 0) or one for each (step 1).
template <class T>
struct Number {
  AsBits<T> value;
  std::int32_t unused = 0;
  const T* data = nullptr;
  std::int64_t step = 0;
};

struct Epilogue {
  DType out_dtype{};       // int32, float32, float16, bfloat16, int8 or uint8
  std::int32_t depth = 0;  // terms of a sum

  // Scales and zero points of a are of its rows, those of b of its columns.
  Number<float> scale_a{1}, scale_b{1};
  Number<std::int32_t> zero_point_a, zero_point_b;
  // sum_k b of each column, needed where a has a zero point, and sum_k a of each row, where b has. Null:
  // there is no such zero point.
  const std::int32_t *sums_b = nullptr, *sums_a = nullptr;

  const float* bias = nullptr;  // one a column
  const void* residual = nullptr;
  DType residual_dtype{};  // float32, float16, bfloat16, int8 or uint8
  AsBits<float> residual_scale = 1;
  std::int32_t residual_zero_point = 0;
  Activation activation = Activation::none;
  AsBits<float> slope = 0;  // of leaky_relu below zero
  std::int32_t out_zero_point = 0;
  Number<float> out_scale{1};
};

}  // namespace cnnkernels::int8
