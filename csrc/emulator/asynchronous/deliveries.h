// When what is on its way arrives: at once, or, in Mode::late, when somebody waits for it.
#pragma once

#include <functional>

#include "emulator/asynchronous/state.h"
#include "emulator/machine/state.h"

namespace cnnkernels::emulator {

// A copy into shared memory of `destination`, which signals the mbarrier of `block`.
void deliver(Block& destination, Block& block, std::uint32_t mbarrier, std::function<void()> land);
// Somebody waits for the mbarrier, in vain: one of what it waits for arrives.
void deliver_for(Block& block, std::uint32_t mbarrier);

// A copy out of shared memory by a lane, of its open bulk group.
void start_bulk(Warp& warp, int lane, std::function<void()> read, std::function<void()> write);

// Groups below `groups` of a lane are complete; of bulk groups, at least read.
void complete_copies(Warp& warp, int lane, std::uint32_t groups);
void complete_bulks(Warp& warp, int lane, std::uint32_t groups, bool read_only);

void land(const WarpCopies::Copy& copy);

}  // namespace cnnkernels::emulator
