#include "kernel.cuh"

namespace cnnkernels::conv2d::hopper {

template void launch_forward<tf32>(const ForwardArguments&, const Plan&, std::uintptr_t);

}  // namespace cnnkernels::conv2d::hopper
