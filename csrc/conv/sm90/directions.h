// The three directions of a problem on Hopper's kernel, and when it serves.
#pragma once

#include <optional>

#include "limits.h"

namespace cnnkernels::conv::sm90 {

// The plan by which this kernel serves, if it is to: because `asked` names it, or nothing was asked for, the
// current device is a Hopper and it can. Pointers are those of the problem's tensors.
// std::invalid_argument where it was asked for and cannot serve.
std::optional<Plan> plan_for(Direction direction, const Problem& problem, const Plan* asked,
                             std::initializer_list<const void*> pointers = {});

void forward(const Problem& problem, const Plan& plan, const void* input, const void* weight,
             const Epilogue& epilogue, void* output, std::uintptr_t stream);
void backward_input(const Problem& problem, const Plan& plan, const void* grad_output, const void* weight,
                    const Epilogue& epilogue, void* grad_input, std::uintptr_t stream);
// workspace: plan.splits times the filter in fp32, where there is more than one.
void backward_weight(const Problem& problem, const Plan& plan, const void* grad_output, const void* input,
                     void* grad_weight, void* workspace, std::uintptr_t stream);

}  // namespace cnnkernels::conv::sm90
