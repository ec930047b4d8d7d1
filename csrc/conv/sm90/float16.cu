#include "kernel.cuh"

namespace cnnkernels::conv::sm90 {

template void launch_forward<float16>(const ForwardArguments&, const Plan&, std::uintptr_t);
template void launch_backward_input<float16>(const BackwardInputArguments&, const Plan&, std::uintptr_t);
template void launch_backward_weight<float16>(const BackwardWeightArguments&, const Plan&, std::uintptr_t);

}  // namespace cnnkernels::conv::sm90
