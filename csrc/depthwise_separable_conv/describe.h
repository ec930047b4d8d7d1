// A plan in words.
#pragma once

#include <string>

#include "plan.h"

namespace cnnkernels::depthwise_separable_conv {

inline std::string describe(const Plan& plan) {
  const Tile& tile = kTiles[plan.tile];
  const char* reader = plan.reader == Reader::rows_of_three ? "rows of three"
                       : plan.reader == Reader::vectors     ? "vectors"
                                                            : "elements";
  return std::to_string(tile.rows) + "x" + std::to_string(tile.columns) + ", " + reader + ", patches of " +
         std::to_string(tile.rows / plan.patch_columns) + "x" + std::to_string(plan.patch_columns) +
         (plan.keeps ? ", keeps the intermediate" : "") + (plan.wgmma ? ", wgmma" : "");
}

}  // namespace cnnkernels::depthwise_separable_conv
