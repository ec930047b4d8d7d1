// bar.sync, bar.arrive, bar.red and barrier.cluster.
#pragma once

namespace cnnkernels::emulator {

struct Warp;

// Lanes of the warp have ended: barriers do not wait for them any more.
void look_at_barriers(Warp& warp);

}  // namespace cnnkernels::emulator
