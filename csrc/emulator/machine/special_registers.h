// %tid, %ctaid, %laneid and the like: registers of a warp that are set when it starts.
#pragma once

namespace cnnkernels::emulator {

struct Warp;

// Also the addresses of variables in shared memory, which depend on the block's rank.
void set_special_registers(Warp& warp);
// %clock and %globaltimer count instructions of the warp.
void set_clocks(Warp& warp);

}  // namespace cnnkernels::emulator
