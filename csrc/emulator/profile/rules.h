// How many turns a warp's access takes, by the hardware's documented rules (docs/emulator.md names where).
#pragma once

#include <cstdint>

#include "emulator/types.h"

namespace cnnkernels::emulator {

inline constexpr std::uint32_t kBanks = 32, kBankBytes = 4, kWavefrontBytes = kBanks * kBankBytes;
inline constexpr std::uint32_t kSectorBytes = 32;

// Of shared memory: `least` is what it would take without a conflict.
struct Wavefronts {
  std::uint32_t least = 0, taken = 0;
};

// Lanes with up to 4 bytes go together, with 8 in two halves, with 16 in four quarters; a part without a lane
// that is active takes nothing. Within a part a bank serves one word at a time to all who want it; but an
// atomic operation serves one lane.
Wavefronts wavefronts_of(const std::uint64_t (&addresses)[kLanes], Mask lanes, std::uint32_t bytes,
                         bool atomic);

// Of a run of global memory.
constexpr std::uint64_t sectors_of(std::uint64_t address, std::uint64_t bytes) {
  return bytes == 0 ? 0 : (address + bytes - 1) / kSectorBytes - address / kSectorBytes + 1;
}

// The bytes that the lanes want of global memory, each once.
std::uint32_t distinct_bytes(const std::uint64_t (&addresses)[kLanes], Mask lanes, std::uint32_t bytes);

}  // namespace cnnkernels::emulator
