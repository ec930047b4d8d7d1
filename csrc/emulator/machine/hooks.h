// Where the scheduler calls what is asynchronous.
#pragma once

#include "emulator/types.h"

namespace cnnkernels::emulator {

struct Warp;
struct Cluster;

// asynchronous/: one thing on its way arrives; false where nothing is. Called when no warp makes progress.
bool deliver_one(Cluster& cluster);
// Mode::unasked: some of what is on its way arrives, or nothing does.
void deliver_some(Cluster& cluster);
// The lanes end: what they have started and not waited for is completed, or a Fault.
void finish_lanes(Warp& warp, Mask lanes);
// All warps have ended: what is still on its way arrives, and what must not be left is a Fault.
void finish_cluster(Cluster& cluster);

}  // namespace cnnkernels::emulator
