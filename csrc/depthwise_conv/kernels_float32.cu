#include "slab.cuh"
#include "weight_gradient.cuh"

namespace cnnkernels::depthwise_conv {

template void launch_correlation<float>(const Correlation&, const Plan&, const CorrelationPointers&,
                                        std::uintptr_t);
template void launch_slab<float>(Correlation, const Plan&, const CorrelationPointers&, std::uintptr_t);
template void launch_weight_gradient<float>(const WeightGradient&, const Plan&, const WeightGradientPointers&,
                                            std::uintptr_t);

}  // namespace cnnkernels::depthwise_conv
