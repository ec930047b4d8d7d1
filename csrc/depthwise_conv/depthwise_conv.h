// depthwise_conv2d's launchers in plain C++: pointers, sizes and a stream come in; shapes were checked by the
// caller.
//
// y[n, k, p, q] = bias[k] + sum over r, s of x[n, k / m, p stride_h - pad_h + r dilation_h, ...] w[k, r, s],
// zero where x ends; m = K / C is the channel multiplier. Activations are dense in `layout`; filters lie
// [K, R, S] beside either.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/geometry.h"
#include "plan.h"

namespace cnnkernels {
enum class DType : int;  // common/types.h
}

namespace cnnkernels::depthwise_conv {

struct Problem {
  ConvGeometry geometry;  // groups == c
  Layout layout;
  DType dtype;  // of every tensor; 16-bit types are summed in fp32
};

// `plan` null: select.h decides. A plan that cannot serve is refused with std::invalid_argument.
// Every element of the result is written and nothing else is.
void forward(const Problem& problem, const void* input, const void* weight, const void* bias, void* output,
             std::uintptr_t stream, const Plan* plan = nullptr);
// bias: of each channel, as a transposed convolution has it.
void backward_input(const Problem& problem, const void* grad_output, const void* weight, const void* bias,
                    void* grad_input, std::uintptr_t stream, const Plan* plan = nullptr);
void backward_weight(const Problem& problem, const void* grad_output, const void* input, void* grad_weight,
                     void* workspace, std::uintptr_t stream, const Plan* plan = nullptr);

// Bytes of device memory that backward_weight needs for its partial sums, for tensors of any alignment.
std::size_t backward_weight_workspace(const Problem& problem, const Plan* plan = nullptr);

// What select.h would do for tensors aligned to 16 bytes.
Plan plan_of(Direction direction, const Problem& problem);

}  // namespace cnnkernels::depthwise_conv
