#include "kernel.cuh"
#include "weight_kernel.cuh"

namespace cnnkernels::conv::grouped {

template void launch_sweep<float16>(const Sweep&, const Patch&, const Epilogue&, std::uintptr_t);
template void launch_sweep<bfloat16>(const Sweep&, const Patch&, const Epilogue&, std::uintptr_t);
template void launch_gradient<float16>(const Sweep&, const Patch&, const Gradient&, std::uintptr_t);
template void launch_gradient<bfloat16>(const Sweep&, const Patch&, const Gradient&, std::uintptr_t);

}  // namespace cnnkernels::conv::grouped
