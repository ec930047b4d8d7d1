#include "weight_gradient.cuh"

namespace cnnkernels::depthwise_conv2d {

template void launch_weight_gradient<bfloat16>(const WeightGradient&, const Plan&,
                                               const WeightGradientPointers&, std::uintptr_t);

}  // namespace cnnkernels::depthwise_conv2d
