// A plan in words, for people and for errors.
#pragma once

#include <string>

#include "plan.h"

namespace cnnkernels::int8 {

inline std::string describe(const Plan& plan) {
  const std::string splits = ", splits " + std::to_string(plan.splits);
  if (plan.wgmma) {
    const Sm90Tile& tile = kSm90Tiles[plan.tile];
    return "wgmma " + std::to_string(tile.rows) + "x" + std::to_string(tile.columns) +
           (tile.ping_pong ? " ping-pong" : "") + (tile.cluster > 1 ? " cluster" : "") + splits;
  }
  const Tile& tile = kTiles[plan.tile];
  return std::string(plan.vectors ? "vectors " : "words ") + std::to_string(tile.rows) + "x" +
         std::to_string(tile.columns) + splits;
}

}  // namespace cnnkernels::int8
