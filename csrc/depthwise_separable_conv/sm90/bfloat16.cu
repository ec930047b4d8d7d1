#include "fused.cuh"

namespace cnnkernels::depthwise_separable_conv {

template void launch_sm90<bfloat16>(const Pair&, const Plan&, std::int64_t, std::uintptr_t);

}  // namespace cnnkernels::depthwise_separable_conv
