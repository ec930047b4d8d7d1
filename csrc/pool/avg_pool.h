// Launchers of avg_pool2d and adaptive_avg_pool2d: plain C++, device pointers in, asynchronous on `stream`.
//
// Tensors are dense in `layout`: input and grad_input [n, c, h, w]; output and grad_output [n, c, p, q]. No
// extent is 0. Every element of what is written is written exactly once, and nothing needs clearing first.
// Sums are in fp32 (fp64 for fp64), in an order that is the layer's alone, divided and then rounded once.
//
// `largest_index` as in pool.h.
#pragma once

#include <cstdint>

#include "../common/geometry.h"
#include "../common/index.h"

namespace cnnkernels {
enum class DType : int;
}

namespace cnnkernels::pool {

// output[n, c, p, q] = sum of input over the window's places inside the image / divisor. The divisor is
// `divisor_override` where that is not 0, else the number of those places; with `count_include_pad` that of
// the places within the padding too, not of those that ceil_mode has beyond it. geometry.dilation is 1.
void avg_pool_forward(DType dtype, const PoolGeometry& geometry, Layout layout, bool count_include_pad,
                      std::int64_t divisor_override, const void* input, void* output, std::uintptr_t stream,
                      std::int64_t largest_index = kLargestIndex);

// grad_input[n, c, h, w] = sum of grad_output / divisor over the windows that hold (h, w), in ascending (p,
// q); where all have one divisor the sum is divided.
void avg_pool_backward(DType dtype, const PoolGeometry& geometry, Layout layout, bool count_include_pad,
                       std::int64_t divisor_override, const void* grad_output, void* grad_input,
                       std::uintptr_t stream, std::int64_t largest_index = kLargestIndex);

// The same with bins for windows: bin p holds the rows from floor(p h / P) to before ceil((p + 1) h / P). Of
// the geometry the sizes alone count. `workspace` has as many bytes as adaptive_avg_pool_workspace says.
void adaptive_avg_pool_forward(DType dtype, const PoolGeometry& geometry, Layout layout, const void* input,
                               void* output, void* workspace, std::uintptr_t stream,
                               std::int64_t largest_index = kLargestIndex);
void adaptive_avg_pool_backward(DType dtype, const PoolGeometry& geometry, Layout layout,
                                const void* grad_output, void* grad_input, std::uintptr_t stream,
                                std::int64_t largest_index = kLargestIndex);

// For the sums of parts of a plane: not 0 where one bin is the whole of it, and it is large.
std::int64_t adaptive_avg_pool_workspace(DType dtype, const PoolGeometry& geometry, Layout layout);

// adaptive_avg_pool_forward where the output is one pixel (global.cu).
void global_avg_pool_forward(DType dtype, const PoolGeometry& geometry, Layout layout, const void* input,
                             void* output, void* workspace, std::uintptr_t stream,
                             std::int64_t largest_index);

}  // namespace cnnkernels::pool
