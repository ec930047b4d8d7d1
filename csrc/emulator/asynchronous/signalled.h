// A copy into shared memory, here or in several blocks of the cluster, that an mbarrier of each block counts.
#pragma once

#include <cstdint>
#include <functional>

#include "emulator/machine/state.h"
#include "emulator/memory/address.h"

namespace cnnkernels::emulator {

struct SignalledCopy {
  SharedPlace to;
  std::uint32_t bytes;    // that are written, from `to` on
  std::uint32_t counted;  // at the mbarrier
  SharedPlace mbarrier;
  std::uint32_t multicast = 0;  // ranks of blocks, a bit each; 0: `to` alone
  int lane;
  int line;
  // Calls its argument for every range of bytes that will be written: dense boxes are one.
  std::function<void(std::function<void(std::uint32_t offset, std::uint32_t bytes)>)> for_each_range;
  std::function<void(Block& block)> land;
};

void start(Warp& warp, const SignalledCopy& copy);

}  // namespace cnnkernels::emulator
