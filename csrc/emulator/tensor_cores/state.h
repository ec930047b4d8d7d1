// A warp's share of its warpgroup's products that are in flight.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "emulator/types.h"

namespace cnnkernels::emulator {

struct WgmmaDetails;

// An accumulator's register while its product is in flight (Mode::late). The register holds a token, a NaN
// that no computation makes, so that kernels may copy it from register to register as compilers do, and what
// reads it too early computes nonsense.
struct Accumulator {
  std::array<std::uint32_t, kLanes> value;  // before the product, then after
  std::shared_ptr<Accumulator> before;      // the product that it waits for itself
};

struct Product {
  const WgmmaDetails* details;
  std::uint64_t a = 0, b = 0;  // descriptors
  bool adds = true;            // scale-d
  std::uint32_t group = 0;
  int line = 0;
  bool computed = false;
  std::vector<std::uint32_t> tokens{};
  std::vector<std::shared_ptr<Accumulator>> accumulators{};
  // As they were: compilers write them again before the wait, and ptxas sees to it.
  std::vector<std::array<std::uint32_t, kLanes>> a_registers{};
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
  std::unordered_map<std::uint32_t, std::shared_ptr<Accumulator>> tokens;  // in flight
};

}  // namespace cnnkernels::emulator
