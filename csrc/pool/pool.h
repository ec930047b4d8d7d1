// Launchers of max_pool2d and max_unpool2d: plain C++, device pointers in, asynchronous on `stream`.
//
// Tensors are dense in `layout`: input and grad_input [n, c, h, w]; output, grad_output, argmax and indices
// [n, c, p, q]. No extent is 0. Every element of what is written is written exactly once, and nothing needs
// clearing first (but max_unpool2d's `winner`). argmax, of type `places`, holds the place r * S + s of each
// window's winner: uint8 for windows of up to 255 places, uint16 up to 65535, else int32.
//
// `largest_index` is the largest element offset that the kernels with 32-bit arithmetic may meet. Tests lower
// it to drive small tensors through what serves tensors of more than 2^31 elements.
#pragma once

#include <cstdint>

#include "../common/geometry.h"
#include "../common/index.h"

namespace cnnkernels {
enum class DType : int;
}

namespace cnnkernels::pool {

// output[n, c, p, q] = max over (r, s) of input[n, c, h, w] at h = p stride_h - pad_h + r dilation_h,
// w = q stride_w - pad_w + s dilation_w, with PyTorch's rules: outside counts as -inf, the first maximum wins
// a tie, the last NaN wins over all, a window of nothing but -inf gives its first place inside the input.
void max_pool_forward(DType dtype, DType places, const PoolGeometry& geometry, Layout layout,
                      const void* input, void* output, void* argmax, std::uintptr_t stream,
                      std::int64_t largest_index = kLargestIndex);

// grad_input[n, c, h, w] = sum of grad_output over the windows that (h, w) won, in ascending (p, q), in fp32
// (fp64 for fp64).
void max_pool_backward(DType dtype, DType places, const PoolGeometry& geometry, Layout layout,
                       const void* grad_output, const void* argmax, void* grad_input, std::uintptr_t stream,
                       std::int64_t largest_index = kLargestIndex);

// output[n, c, p, q] = input at the winner of window (p, q): the derivative of the backward. 0 where a window
// has no place inside the input.
void max_pool_gather(DType dtype, DType places, const PoolGeometry& geometry, Layout layout,
                     const void* input, const void* argmax, void* output, std::uintptr_t stream,
                     std::int64_t largest_index = kLargestIndex);

// indices[n, c, p, q] = h * W + w of the winner, as PyTorch's return_indices.
void max_pool_indices(DType places, const PoolGeometry& geometry, Layout layout, const void* argmax,
                      std::int64_t* indices, std::uintptr_t stream,
                      std::int64_t largest_index = kLargestIndex);

// Extents of an unpooling: input and indices [n, c, p, q], output and winner [n, c, h, w].
struct UnpoolGeometry {
  std::int64_t n, c, p, q, h, w;
};

// output = 0 but output[n, c, indices[n, c, p, q]] = input[n, c, p, q]; of several with one index the last
// (p, q) wins. `winner` holds zeros on entry. An index outside [0, h w) writes nothing.
void max_unpool_forward(DType dtype, const UnpoolGeometry& geometry, Layout layout, const void* input,
                        const std::int64_t* indices, std::int32_t* winner, void* output,
                        std::uintptr_t stream, std::int64_t largest_index = kLargestIndex);

// grad_input[n, c, p, q] = grad_output[n, c, indices[n, c, p, q]], 0 for an index outside [0, h w).
void max_unpool_backward(DType dtype, const UnpoolGeometry& geometry, Layout layout, const void* grad_output,
                         const std::int64_t* indices, void* grad_input, std::uintptr_t stream,
                         std::int64_t largest_index = kLargestIndex);

}  // namespace cnnkernels::pool
