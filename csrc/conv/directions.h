// The three directions of a convolution as implicit GEMMs, and how one is run. Null pointers count as
// aligned.
#pragma once

#include <vector>

#include "conv.h"
#include "implicit_gemm/launch.h"
#include "select.h"

namespace cnnkernels::conv {

Gemm forward_gemm(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
                  void* output);
std::vector<Gemm> backward_input_gemms(const Problem& problem, const void* grad_output, const void* weight,
                                       const Epilogue& epilogue, void* grad_input);
Gemm backward_weight_gemm(const Problem& problem, const void* grad_output, const void* input,
                          void* grad_weight);

inline Element element_of(const Problem& problem) { return {problem.dtype, problem.tf32}; }

// The plan to follow: the one that was asked for, or the selection's.
inline Plan decide(Direction direction, const Problem& problem, const Gemm& gemm, const Plan* asked) {
  const Element element = element_of(problem);
  if (asked != nullptr && asked->binding) {
    validate(direction, *asked, gemm, element);
    return *asked;
  }
  const int splits = asked != nullptr ? asked->splits : splits_for(direction, problem);
  return select(direction, gemm, element, this_gpu(), splits, asked).plan();
}

// The directions on tensors as they lie, nothing packed.
void run_forward(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
                 void* output, std::uintptr_t stream, const Plan* plan);
void run_backward_input(const Problem& problem, const void* grad_output, const void* weight,
                        const Epilogue& epilogue, void* grad_input, std::uintptr_t stream, const Plan* plan);
void run_backward_weight(const Problem& problem, const void* grad_output, const void* input,
                         void* grad_weight, void* workspace, std::uintptr_t stream, const Plan* plan);
std::size_t bytes_of_parts(const Problem& problem, const Plan* asked);  // of run_backward_weight's workspace

// One, or one for each phase of backward_input, with null pointers.
std::vector<Gemm> gemms(Direction direction, const Problem& problem);

inline void launch_gemm(const Element& element, const Gemm& gemm, const Plan& plan, void* partial,
                        std::uintptr_t stream) {
  switch (element.dtype) {
    case DType::float64:
      return launch_gemm<double>(gemm, plan, partial, stream);
    case DType::float32:
      return element.tf32 ? launch_gemm<tf32>(gemm, plan, partial, stream)
                          : launch_gemm<float>(gemm, plan, partial, stream);
    case DType::float16:
      return launch_gemm<float16>(gemm, plan, partial, stream);
    case DType::bfloat16:
      return launch_gemm<bfloat16>(gemm, plan, partial, stream);
    default:
      throw std::invalid_argument("conv2d: expected float64, float32, float16 or bfloat16");
  }
}

}  // namespace cnnkernels::conv
