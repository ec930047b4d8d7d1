#include "kernel.cuh"

namespace cnnkernels::conv {

template void launch_gemm<tf32>(const Gemm&, const Plan&, void*, std::uintptr_t);

}  // namespace cnnkernels::conv
