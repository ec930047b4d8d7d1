// What instructions of several families tell the meter: set as Instruction::measure where they are decoded.
#pragma once

#include "emulator/types.h"

namespace cnnkernels::emulator {

struct Warp;
struct Instruction;

// ld, st, atom and red: of `type` and `list_size` at the address in source[0], in whatever memory that is.
void measure_load(Warp& warp, const Instruction& instruction, Mask lanes);
void measure_load_past_l1(Warp& warp, const Instruction& instruction, Mask lanes);
void measure_store(Warp& warp, const Instruction& instruction, Mask lanes);
void measure_atomic(Warp& warp, const Instruction& instruction, Mask lanes);
// ldmatrix and stmatrix: rows of 16 bytes, of 8 lanes a matrix.
void measure_rows(Warp& warp, const Instruction& instruction, Mask lanes);

}  // namespace cnnkernels::emulator
