// The state machine of an mbarrier, and the words of it that lie in shared memory.
#pragma once

#include <cstdint>

#include "emulator/asynchronous/state.h"
#include "emulator/machine/state.h"

namespace cnnkernels::emulator {

inline constexpr std::uint32_t kMostArrivals = (1u << 20) - 1;

// Opaque to kernels, but mbarrier.pending_count: the arrivals still to come, in the low 20 bits, and the
// phase.
std::uint64_t state_word(const Mbarrier& barrier);
std::uint32_t phase_of(std::uint64_t state);

// A Fault where there is none, or its bytes were overwritten.
Mbarrier& mbarrier_at(Block& block, std::uint32_t offset);

void initialise(Block& block, std::uint32_t offset, std::uint32_t arrivals);
void invalidate(Block& block, std::uint32_t offset);

// Each completes the phase where nothing is left to come.
void expect_bytes(Block& block, std::uint32_t offset, std::uint32_t bytes);
void complete_bytes(Block& block, std::uint32_t offset, std::uint32_t bytes);
void arrive(Block& block, std::uint32_t offset, std::uint32_t count, std::uint32_t expected_bytes = 0);
void expect_arrival(Block& block, std::uint32_t offset);             // one more in this phase
void drop(Block& block, std::uint32_t offset, std::uint32_t count);  // from the next phases on; then arrive

bool phase_complete(const Mbarrier& barrier, std::uint32_t parity);

}  // namespace cnnkernels::emulator
