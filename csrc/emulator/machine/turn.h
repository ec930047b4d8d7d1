// A warp's turn: its lanes run in groups of those at the same instruction, the lowest first, so that they
// meet again.
#pragma once

namespace cnnkernels::emulator {

struct Warp;

// Runs about `quantum` instructions, fewer where the warp has to wait. Returns whether it got anywhere: false
// where every lane only found that it still has to wait.
bool take_turn(Warp& warp, int quantum);

}  // namespace cnnkernels::emulator
