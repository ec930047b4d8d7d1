// Launchers of int8_max_pool and int8_avg_pool: plain C++, device pointers in, asynchronous on `stream`.
//
// Tensors are int8 or uint8 and channels_last: input [n, h, w, c] and output [n, p, q, c] in memory. No
// extent is 0. `largest_index` is the number of threads that a launch may count with 32-bit arithmetic; tests
// lower it.
#pragma once

#include <cstdint>

#include "../common/geometry.h"
#include "../common/index.h"

namespace cnnkernels {
enum class DType : int;
}

namespace cnnkernels::int8_pool {

// The largest of a window's places inside the input; the least number of the type where there is none.
void int8_max_pool(DType dtype, const PoolGeometry& geometry, const void* input, void* output,
                   std::uintptr_t stream, std::int64_t largest_index = kLargestIndex);

// output = clamp(rint(float(sum of (x - zero_point)) / float(divisor)) + zero_point), the sum over the places
// inside the input, exact. The divisor is the number of those places, or of those within the padding too
// (count_include_pad), or `divisor_override` where that is not 0. geometry.dilation is 1.
void int8_avg_pool(DType dtype, const PoolGeometry& geometry, std::int32_t zero_point, bool count_include_pad,
                   std::int32_t divisor_override, const void* input, void* output, std::uintptr_t stream,
                   std::int64_t largest_index = kLargestIndex);

}  // namespace cnnkernels::int8_pool
