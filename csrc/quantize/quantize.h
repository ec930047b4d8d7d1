// Launchers of quantize and dequantize: plain C++, device pointers in, asynchronous on `stream`.
//
//   q = clamp(rint(x * (1 / scale)) + zero_point)     ties to even; a NaN gives the zero point
//   x = float(q - zero_point) * scale                 rounded once more where x is not fp32
//
// All of it is fp32, each operation rounded by itself; fp64 is narrowed to fp32 first. Tensors are dense.
#pragma once

#include <cstdint>

#include "../common/as_bits.h"
#include "../common/index.h"

namespace cnnkernels {
enum class DType : int;
}

namespace cnnkernels::quantize {

// A tensor in memory, [outer, groups, inner]: a scale for each group. No extent is 0.
struct Grouped {
  std::int64_t outer, groups, inner;
};

// A number for all groups, or where there is a pointer, one for each in device memory.
struct Quantization {
  AsBits<float> scale = 1;
  std::int32_t zero_point = 0;
  const float* scales = nullptr;
  const std::int32_t* zero_points = nullptr;
};

// `largest_index` is the largest element offset that is decoded with 32-bit arithmetic. Tests lower it.
// float64, float32, float16 or bfloat16 to int8 or uint8.
void quantize(DType from, DType to, const Grouped& shape, const void* input, void* output,
              const Quantization& by, std::uintptr_t stream, std::int64_t largest_index = kLargestIndex);

// The same with int8, zero point 0 and scales[group] = the group's largest magnitude / 127, which is written:
// NaN does not count, and a group of zeros has the scale 1. `workspace` is cleared memory of as many bytes as
// quantize_dynamic_workspace says: none where groups are rows that fit into a block's registers.
std::int64_t quantize_dynamic_workspace(const Grouped& shape);
void quantize_dynamic(DType from, const Grouped& shape, const void* input, void* output, float* scales,
                      void* workspace, std::uintptr_t stream, std::int64_t largest_index = kLargestIndex);

// int8 or uint8 to float64, float32, float16 or bfloat16.
void dequantize(DType from, DType to, const Grouped& shape, const void* input, void* output,
                const Quantization& by, std::uintptr_t stream, std::int64_t largest_index = kLargestIndex);

}  // namespace cnnkernels::quantize
