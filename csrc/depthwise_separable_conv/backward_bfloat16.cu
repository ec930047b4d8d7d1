#include "backward.cuh"

namespace cnnkernels::depthwise_separable_conv {

template void launch_backward<bfloat16>(const Pair&, const Errors&, Reader, std::int64_t, std::uintptr_t);

}  // namespace cnnkernels::depthwise_separable_conv
