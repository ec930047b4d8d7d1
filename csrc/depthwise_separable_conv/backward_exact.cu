#include "backward.cuh"

namespace cnnkernels::depthwise_separable_conv {

template void launch_backward<double>(const Pair&, const Errors&, Reader, std::int64_t, std::uintptr_t);
template void launch_backward<float>(const Pair&, const Errors&, Reader, std::int64_t, std::uintptr_t);

}  // namespace cnnkernels::depthwise_separable_conv
