// Starts Hopper's kernel. One source file an element type holds those of all directions.
#pragma once

#include "arguments.h"

namespace cnnkernels::conv::sm90 {

// In: float16, bfloat16; tf32 in the forward alone.
template <class In>
void launch_forward(const ForwardArguments& a, const Plan& plan, std::uintptr_t stream);
template <class In>
void launch_backward_input(const BackwardInputArguments& a, const Plan& plan, std::uintptr_t stream);
template <class In>
void launch_backward_weight(const BackwardWeightArguments& a, const Plan& plan, std::uintptr_t stream);

}  // namespace cnnkernels::conv::sm90
