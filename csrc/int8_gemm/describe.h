// A plan in words, for people and for errors.
#pragma once

#include <string>

#include "../int8/describe.h"
#include "select.h"

namespace cnnkernels::int8_gemm {

inline std::string describe(const Plan& plan) {
  const std::string packed = plan.pack_a   ? (plan.pack_b ? "pack a and b, " : "pack a, ")
                             : plan.pack_b ? "pack b, "
                                           : "";
  if (plan.kernel == Kernel::tiles) return packed + int8::describe(plan.tiles);
  return packed + "stream weights, " + std::to_string(plan.stream_columns) + " columns, " +
         std::to_string(plan.warps) + " warps";
}

}  // namespace cnnkernels::int8_gemm
