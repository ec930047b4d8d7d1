// From a problem and a plan to the kernel's view of it, and the choice of element type.
#include "make_pair.h"

namespace cnnkernels::depthwise_separable_conv {

void forward(const Problem& problem, const Tensors& tensors, std::uintptr_t stream, const Plan* asked) {
  const Plan plan = decide(problem, tensors, this_gpu(), asked);
  const int rows = kTiles[plan.tile].rows;
  const Pair pair = make_pair(problem, tensors, plan, rows);
  const std::int64_t patches = patches_of(problem.geometry, rows, plan.patch_columns);
  switch (problem.dtype) {
    case DType::float64:
      return launch_fused<double>(pair, plan, patches, stream);
    case DType::float32:
      return problem.tf32 ? launch_fused<tf32>(pair, plan, patches, stream)
                          : launch_fused<float>(pair, plan, patches, stream);
    case DType::float16:
      return plan.wgmma ? launch_sm90<float16>(pair, plan, patches, stream)
                        : launch_fused<float16>(pair, plan, patches, stream);
    case DType::bfloat16:
      return plan.wgmma ? launch_sm90<bfloat16>(pair, plan, patches, stream)
                        : launch_fused<bfloat16>(pair, plan, patches, stream);
    default:
      throw std::invalid_argument(
          "depthwise_separable_conv2d: expected float64, float32, float16 or bfloat16");
  }
}

Plan plan_for(const Problem& problem, const Gpu& gpu) { return select(problem, Tensors{}, gpu); }

}  // namespace cnnkernels::depthwise_separable_conv
