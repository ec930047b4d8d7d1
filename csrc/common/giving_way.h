// Engines that failed their proof on a GPU (docs/proof.md). Selection passes them over there; a plan that is
// dictated runs all the same.
#pragma once

#include <string>

#include "types.h"

namespace cnnkernels {

// Those with another engine of their operator behind them.
enum class Yielding { conv_wgmma, conv_grouped, conv_packed, depthwise_band, pair_wgmma, int8_wgmma };

inline constexpr const char* kGaveWay = "it failed its proof here (cnnkernels info)";

// On the current GPU. `direction`: an operator's own number, 0 where it has one direction.
bool gave_way(Yielding engine, int direction, DType dtype);

// By the words of cnnkernels/certified/families.py; std::invalid_argument for an engine that has none behind
// it, std::out_of_range for a device that there cannot be.
void give_way(const std::string& word, const std::string& direction, const std::string& engine, DType dtype,
              int device, bool gives);

}  // namespace cnnkernels
