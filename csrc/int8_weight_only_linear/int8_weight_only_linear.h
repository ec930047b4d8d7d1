// int8_weight_only_linear's launcher in plain C++: pointers, sizes, strides and a stream come in; shapes were
// checked.
//
// output[m, n] = epilogue(sum_k input[m, k] weight[n, k]), floating inputs by int8 weights, where the
// epilogue (int8/epilogue.h) begins with the scale of the column: x = sum * scale_b[n].
#pragma once

#include <cstdint>

#include "../int8/epilogue.h"

namespace cnnkernels::int8_weight_only_linear {

inline constexpr int kMostRows = 16;

struct Problem {
  const void* input = nullptr;  // [m, k], element (i, j) at i * row_stride + j * depth_stride
  std::int64_t row_stride = 0, depth_stride = 0;
  const void* weight = nullptr;  // int8 [n, k], rows of consecutive bytes
  std::int64_t weight_stride = 0;
  std::int64_t m = 0, n = 0, k = 0;
  DType dtype{};  // of the input: float32, float16 or bfloat16
  std::int32_t unused = 0;
};

// At most kMostRows rows; std::invalid_argument for more. Every element of the output [m, n], rows of n after
// each other, is written exactly once and nothing else is.
void forward(const Problem& problem, const int8::Epilogue& epilogue, void* output, std::uintptr_t stream);

}  // namespace cnnkernels::int8_weight_only_linear
