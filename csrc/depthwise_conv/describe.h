// A plan in words.
#pragma once

#include <string>

#include "plan.h"

namespace cnnkernels::depthwise_conv {

inline std::string describe(const Plan& plan) {
  const auto text = [](const char* name, int value) { return std::string(name) + std::to_string(value); };
  return text("vector ", plan.vector) + (plan.slab ? ", slab" : "") + (plan.band ? ", band" : "") +
         text(", chunk ", plan.chunk) + text(", lanes ", plan.lanes) + text(", strips ", plan.strips) +
         text(", lines ", plan.lines) + text(", images ", plan.images) + text(", tiles ", plan.tiles) +
         text(", workers ", plan.workers) + text(", splits ", plan.splits);
}

}  // namespace cnnkernels::depthwise_conv
