// int8_gemm's launchers in plain C++: pointers, sizes, strides and a stream come in; shapes were checked.
//
// output[m, n] = epilogue(sum_k (a[m, k] - zero_point_a) (b[k, n] - zero_point_b)), as int8/epilogue.h
// says.
#pragma once

#include <cstddef>

#include "../int8/epilogue.h"
#include "select.h"

namespace cnnkernels::int8 {
struct Operand;  // int8/product.h
}

namespace cnnkernels::int8_gemm {

// `plan` null: select.h decides. A plan that cannot serve is refused with std::invalid_argument. Where a zero
// point asks for sums of the other operand that the epilogue does not bring, they are computed first.
// Every element of the output [m, n], rows of n after each other, is written exactly once and nothing else
// is.
void forward(const Problem& problem, const int8::Epilogue& epilogue, void* output, void* workspace,
             std::uintptr_t stream, const Plan* plan = nullptr);

// Bytes of device memory it needs: those sums, and of copied operands and of partial sums at most 64 MB each.
std::size_t workspace(const Problem& problem, const int8::Epilogue& epilogue, const Plan* plan = nullptr);

// The kernel for few rows, which multiplies weights straight out of global memory (stream_weights.cu).
void launch_stream_weights(const Problem& problem, const Plan& plan, const int8::Epilogue& epilogue,
                           void* output, std::uintptr_t stream);

// Copies a matrix of `k` terms a side to [sides, padded_depth(k)], padded with zeros (pack.cu).
void launch_pack(const int8::Operand& operand, std::int64_t k, void* to, std::uintptr_t stream);

}  // namespace cnnkernels::int8_gemm
