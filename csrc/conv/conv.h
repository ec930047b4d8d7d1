// conv2d's launchers in plain C++: pointers, sizes and a stream come in; shapes were checked by the caller.
//
// y[n, k, p, q] = sum over c, r, s of x[n, c, p stride_h - pad_h + r dilation_h, ...] w[k, c, r,
// s], where x ends zero or what the padding mode repeats there; activations dense in `layout`, filters KRSC
// beside NHWC and KCRS beside NCHW.
#pragma once

#include <cstddef>

#include "../common/geometry.h"
#include "../common/epilogue.h"
#include "plan.h"

namespace cnnkernels {
enum class DType : int;  // common/types.h
}

namespace cnnkernels::conv {

struct Problem {
  ConvGeometry geometry;
  Layout layout;
  DType dtype;  // of every tensor; 16-bit types are summed in fp32
  bool tf32;    // may fp32 operands be rounded to tf32 for the tensor cores?
};

// `plan` null: select.h decides. A binding plan that cannot serve is refused with std::invalid_argument.
// Every element of the result is written and nothing else is. `workspace`: as many bytes as
// workspace_bytes() says for these pointers, aligned to 16 bytes.
void forward(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
             void* output, void* workspace, std::uintptr_t stream, const Plan* plan = nullptr);
// A transposed convolution is this with an epilogue, of numbers of each of the c channels.
void backward_input(const Problem& problem, const void* grad_output, const void* weight,
                    const Epilogue& epilogue, void* grad_input, void* workspace, std::uintptr_t stream,
                    const Plan* plan = nullptr);
void backward_weight(const Problem& problem, const void* grad_output, const void* input, void* grad_weight,
                     void* workspace, std::uintptr_t stream, const Plan* plan = nullptr);
void backward_bias(const Problem& problem, const void* grad_output, void* grad_bias, void* workspace,
                   std::uintptr_t stream);

// What a direction reads, in the order in which its launcher takes it, and writes. Null pointers count as
// aligned; the residual is the epilogue's, null where there is none.
struct Tensors {
  const void *first = nullptr, *second = nullptr, *result = nullptr, *residual = nullptr;
};

// Bytes of device memory that a direction needs beside its tensors: at most 256 MB for packed copies, and in
// backward_weight at most 256 MB for partial sums.
std::size_t workspace_bytes(Direction direction, const Problem& problem, const Tensors& tensors = {},
                            const Plan* plan = nullptr);
// Of the bias gradient's partial sums.
std::size_t backward_bias_workspace(const Problem& problem);

}  // namespace cnnkernels::conv
