#include "band_correlate.cuh"
#include "band_weight_gradient.cuh"
#include "slab.cuh"
#include "weight_gradient.cuh"

namespace cnnkernels::depthwise_conv {

template void launch_correlation<float16>(const Correlation&, const Plan&, const CorrelationPointers&,
                                          std::uintptr_t);
template void launch_slab<float16>(Correlation, const Plan&, const CorrelationPointers&, std::uintptr_t);
template void launch_weight_gradient<float16>(const WeightGradient&, const Plan&,
                                              const WeightGradientPointers&, std::uintptr_t);
template void launch_band<float16>(const Correlation&, const Plan&, const CorrelationPointers&,
                                   std::uintptr_t);
template void launch_band_gradient<float16>(const WeightGradient&, const Plan&, const WeightGradientPointers&,
                                            std::uintptr_t);

}  // namespace cnnkernels::depthwise_conv
