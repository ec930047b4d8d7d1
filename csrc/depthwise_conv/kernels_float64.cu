#include "slab.cuh"
#include "weight_gradient.cuh"

namespace cnnkernels::depthwise_conv {

template void launch_correlation<double>(const Correlation&, const Plan&, const CorrelationPointers&,
                                         std::uintptr_t);
template void launch_slab<double>(Correlation, const Plan&, const CorrelationPointers&, std::uintptr_t);
template void launch_weight_gradient<double>(const WeightGradient&, const Plan&,
                                             const WeightGradientPointers&, std::uintptr_t);

}  // namespace cnnkernels::depthwise_conv
