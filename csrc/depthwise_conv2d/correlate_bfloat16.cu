#include "slab.cuh"

namespace cnnkernels::depthwise_conv2d {

template void launch_correlation<bfloat16>(const Correlation&, const Plan&, const CorrelationPointers&,
                                           std::uintptr_t);
template void launch_slab<bfloat16>(Correlation, const Plan&, const CorrelationPointers&, std::uintptr_t);

}  // namespace cnnkernels::depthwise_conv2d
