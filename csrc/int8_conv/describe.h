// A plan in words, for people and for errors.
#pragma once

#include <string>

#include "../int8/describe.h"
#include "select.h"

namespace cnnkernels::int8_conv {

inline std::string describe(const Plan& plan) {
  if (plan.kernel == Kernel::tiles) return int8::describe(plan.tiles);
  return plan.kernel == Kernel::depthwise ? "depthwise" : "grouped";
}

}  // namespace cnnkernels::int8_conv
