// Where a swizzle puts the 16 bytes at an address of shared memory: TMA writes and reads there, wgmma reads
// there.
#pragma once

#include <cstdint>

#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {

enum class Unit { tma, wgmma };

std::uint32_t wrongly_swizzled(std::uint32_t address, std::uint32_t tile, int span, Unit unit);

// The 16-byte chunk within a span of 128, 64 or 32 bytes is exchanged by which 128 bytes it lies in; of the
// absolute address, wherever the tile begins. `span` 0 is no swizzle.
inline std::uint32_t swizzled(std::uint32_t address, std::uint32_t tile, int span, Unit unit) {
  if (span == 0) return address;
  if (any_wrong()) [[unlikely]]
    return wrongly_swizzled(address, tile, span, unit);
  const std::uint32_t chunks = static_cast<std::uint32_t>(span) / 16;
  return address ^ ((address >> 7) % chunks) << 4;
}

}  // namespace cnnkernels::emulator
