#include "kernel.cuh"

namespace cnnkernels::conv {

template void launch_gemm<float>(const Gemm&, const Plan&, void*, std::uintptr_t);

}  // namespace cnnkernels::conv
