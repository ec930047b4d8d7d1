// A warp's share of its warpgroup's products that are in flight.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "emulator/types.h"

namespace cnnkernels::emulator {

struct WgmmaDetails;

using Lanes = std::array<std::uint32_t, kLanes>;  // of a register

struct Product {
  const WgmmaDetails* details;
  std::uint64_t a = 0, b = 0;  // descriptors
  bool adds = true;            // scale-d
  std::uint32_t group = 0;
  int line = 0;
  bool computed = false;
  // As they were: compilers write them again before the wait, and ptxas sees to it.
  std::vector<Lanes> a_registers{};
  // Of the accumulators, in Mode::late: the tokens that registers hold meanwhile, which count up from
  // `first_token`; what they were and then become; and, where it is an earlier product's that is still in
  // flight, where it comes from.
  std::uint32_t first_token = 0;
  std::vector<Lanes> values{};
  std::vector<const Lanes*> sources{};
};

struct WarpProducts {
  std::uint32_t groups = 0;              // committed
  std::uint32_t issued = 0;              // products
  std::vector<std::uint32_t> issued_by;  // group: `issued` when it was committed
  std::uint32_t meetings = 0;            // with the warpgroup's other warps, begun
  bool meeting = false;                  // and not all there
  bool fenced = false;                   // by wgmma.fence, since a wait or the start let registers be written
  std::deque<Product> in_flight;         // in order
  std::uint32_t next_token = 0;
};

}  // namespace cnnkernels::emulator
