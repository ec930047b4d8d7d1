#include "kernel.cuh"

namespace cnnkernels::conv::sm90 {

template void launch_forward<bfloat16>(const ForwardArguments&, const Plan&, std::uintptr_t);
template void launch_backward_input<bfloat16>(const BackwardInputArguments&, const Plan&, std::uintptr_t);
template void launch_backward_weight<bfloat16>(const BackwardWeightArguments&, const Plan&, std::uintptr_t);

}  // namespace cnnkernels::conv::sm90
