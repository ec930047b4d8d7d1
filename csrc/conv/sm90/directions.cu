// The three directions on Hopper's kernel, and when it serves.
#include "directions.h"

#include "../../gemm/add_parts.h"
#include "launch.h"
#include "select.h"
#include "../../ptx/mma.cuh"

namespace cnnkernels::conv::sm90 {

namespace {

void refuse(const Plan& plan, const std::string& why) {
  throw std::invalid_argument("conv2d: the plan '" + describe(plan) + "' cannot serve this problem: " + why);
}

std::optional<std::string> unaligned(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes != 0)
      return "TMA needs tensors that begin at a multiple of 16 bytes";
  }
  return std::nullopt;
}

}  // namespace

std::optional<Plan> plan_for(Direction direction, const Problem& problem, const Plan* asked,
                             std::initializer_list<const void*> pointers) {
  if (asked == nullptr || !asked->binding) {
    const Gpu& gpu = this_gpu();
    if (asked != nullptr && asked->engine != Engine::wgmma) return std::nullopt;
    if (why_not(direction, problem, gpu) || unaligned(pointers)) return std::nullopt;
    if (asked != nullptr && cannot_serve(direction, problem, tile_of(*asked)) == nullptr) return *asked;
    const std::vector<Candidate> all = candidates(direction, problem, gpu);
    return all[cheapest(all)].plan;
  }
  if (asked->engine != Engine::wgmma) return std::nullopt;
  if (asked->tile < 0 || asked->tile >= kSm90TileCount) throw std::invalid_argument("conv2d: no such tile");
  if (const char* why = cannot_run_wgmma(this_gpu())) refuse(*asked, why);
  if (asked->splits < 1) refuse(*asked, "splits must be at least 1");
  if (asked->splits > 1 && direction != Direction::backward_weight)
    refuse(*asked, "only backward_weight splits its reduction");
  if (const auto why = cannot_serve(direction, problem)) refuse(*asked, *why);
  if (const char* why = cannot_serve(direction, problem, tile_of(*asked))) refuse(*asked, why);
  if (const auto why = unaligned(pointers)) refuse(*asked, *why);
  return *asked;
}

void forward(const Problem& problem, const Plan& plan, const void* input, const void* weight,
             const Epilogue& epilogue, void* output, std::uintptr_t stream) {
  const ForwardArguments a = forward_arguments(problem, tile_of(plan), input, weight, epilogue, output);
  switch (problem.dtype) {
    case DType::float16:
      return launch_forward<float16>(a, plan, stream);
    case DType::bfloat16:
      return launch_forward<bfloat16>(a, plan, stream);
    default:
      return launch_forward<tf32>(a, plan, stream);
  }
}

void backward_input(const Problem& problem, const Plan& plan, const void* grad_output, const void* weight,
                    const Epilogue& epilogue, void* grad_input, std::uintptr_t stream) {
  for (const BackwardInputArguments& a :
       backward_input_arguments(problem, tile_of(plan), grad_output, weight, epilogue, grad_input)) {
    if (problem.dtype == DType::float16)
      launch_backward_input<float16>(a, plan, stream);
    else
      launch_backward_input<bfloat16>(a, plan, stream);
  }
}

void backward_weight(const Problem& problem, const Plan& plan, const void* grad_output, const void* input,
                     void* grad_weight, void* workspace, std::uintptr_t stream) {
  const ConvGeometry& g = problem.geometry;
  void* result = plan.splits > 1 ? workspace : grad_weight;
  const BackwardWeightArguments a =
      backward_weight_arguments(problem, tile_of(plan), plan.splits, grad_output, input, result);
  if (problem.dtype == DType::float16)
    launch_backward_weight<float16>(a, plan, stream);
  else
    launch_backward_weight<bfloat16>(a, plan, stream);
  if (plan.splits > 1) {
    gemm::add_parts(problem.dtype, workspace, grad_weight, g.k * (g.c / g.groups) * g.r * g.s, plan.splits,
                    stream);
  }
}

}  // namespace cnnkernels::conv::sm90
