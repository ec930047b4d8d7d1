// What the models of plans' times share (conv/cost.cpp, conv/sm90/select.h, int8/cost.cpp).
//
// Their counts, of instructions and of wavefronts of shared memory, are of the kernels' PTX in the emulator:
// docs/performance.md has them beside what they replaced, and tests/emulator/test_model_counts.py counts
// again.
#pragma once

#include <algorithm>

#include "gpu.h"

namespace cnnkernels {

inline constexpr double kL2PortBytes = 64;    // a clock, of an SM
inline constexpr double kIssuedPerClock = 4;  // instructions of a warp, of an SM

// Bytes/s that an SM reads of L2 while `busy` SMs do: its share, and no more than its port lets through.
inline double l2_of_sm(const Gpu& gpu, double busy) {
  return std::min(gpu.l2 / std::clamp(busy, 1.0, static_cast<double>(gpu.processors)),
                  kL2PortBytes * gpu.clock);
}

}  // namespace cnnkernels
