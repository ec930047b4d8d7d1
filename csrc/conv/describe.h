// A plan in words, for people and for errors.
#pragma once

#include <string>

#include "plan.h"

namespace cnnkernels::conv {

inline std::string describe(const Plan& plan) {
  const auto name = [](Loader loader) {
    return loader == Loader::along_depth  ? "along depth"
           : loader == Loader::along_side ? "along side"
                                          : "elements";
  };
  const Tile& tile = tile_of(plan);
  const std::string shape = std::to_string(tile.rows) + "x" + std::to_string(tile.columns);
  const std::string packed = plan.packing == Packing::channels ? ", packed channels"
                             : plan.packing == Packing::rows   ? ", packed rows"
                                                               : "";
  const std::string splits = packed + ", splits " + std::to_string(plan.splits);
  if (plan.engine == Engine::wgmma) {
    return "wgmma " + shape + (tile.ping_pong ? " ping-pong" : "") + (tile.cluster > 1 ? " cluster" : "") +
           splits;
  }
  if (plan.engine == Engine::grouped) return "grouped " + shape + splits;
  return (plan.engine == Engine::mma ? "mma " : "fma ") + shape + ", A " + name(plan.a) + ", B " +
         name(plan.b) + splits;
}

}  // namespace cnnkernels::conv
