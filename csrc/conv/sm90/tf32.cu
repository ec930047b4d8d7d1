#include "kernel.cuh"

namespace cnnkernels::conv::sm90 {

template void launch_forward<tf32>(const ForwardArguments&, const Plan&, std::uintptr_t);

}  // namespace cnnkernels::conv::sm90
