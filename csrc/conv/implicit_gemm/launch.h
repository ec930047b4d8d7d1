// Starts the implicit GEMM of a problem as a plan says. One source file an element type holds its kernels.
#pragma once

#include "../gemm.h"

namespace cnnkernels {
struct tf32;  // ptx/mma.cuh
}

namespace cnnkernels::conv {

// In: double, float, tf32, float16 or bfloat16. partial: where each of the plan's splits leaves its sums,
// [split][as C lies in memory] in the accumulator's type; null where C itself is written.
template <class In>
void launch_gemm(const Gemm& gemm, const Plan& plan, void* partial, std::uintptr_t stream);

}  // namespace cnnkernels::conv
