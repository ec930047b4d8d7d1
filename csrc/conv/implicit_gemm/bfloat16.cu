#include "kernel.cuh"

namespace cnnkernels::conv {

template void launch_gemm<bfloat16>(const Gemm&, const Plan&, void*, std::uintptr_t);

}  // namespace cnnkernels::conv
