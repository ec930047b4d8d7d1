// From an address in a state space to bytes of the host: bounds, alignment and windows are checked here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/machine/state.h"

namespace cnnkernels::emulator {

// Generic addresses: global memory's are the host's own, so the windows lie where no host has any.
inline constexpr std::uint64_t kSharedWindow = 0x0100'0000'0000'0000;
inline constexpr std::uint64_t kLocalWindow = 0x0200'0000'0000'0000;
inline constexpr std::uint64_t kParamWindow = 0x0300'0000'0000'0000;
constexpr std::uint64_t window_of(std::uint64_t address) { return address & 0xff00'0000'0000'0000; }

// An address of shared memory has the block's rank in the cluster above these bits.
inline constexpr int kRankShift = 24;
inline constexpr std::uint32_t kOffsetMask = (1u << kRankShift) - 1;

enum class Access : std::uint8_t { read, write, atomic };

// Of shared, cluster, or a generic address in the shared window. A block that has ended is a Fault, and so is
// an address outside, or another block's in Space::shared. Alignment to `align`. Races are told nothing here.
struct SharedPlace {
  Block* block;
  std::uint32_t offset;
  std::byte* bytes() const { return block->shared.at(offset); }
};
SharedPlace shared_place(Warp& warp, int lane, Space space, std::uint64_t address, std::uint32_t bytes,
                         std::uint32_t align);

// Of global memory: a Fault where it is outside of Mode::memory and the module's variables. `lane` is for the
// fault.
std::byte* global_place(Warp& warp, int lane, std::uint64_t address, std::uint64_t bytes);

// Of any space, aligned to `bytes` (16 at most), for an access by the lane itself: shared memory is told to
// the races, and marked as written or looked at for being so.
std::byte* place(Warp& warp, int lane, Space space, std::uint64_t address, std::uint32_t bytes,
                 Access access);

}  // namespace cnnkernels::emulator
