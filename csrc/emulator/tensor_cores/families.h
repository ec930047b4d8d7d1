// The families of tensor-core instructions.
#pragma once

#include "emulator/machine/state.h"
#include "emulator/ptx/decoder.h"

namespace cnnkernels::emulator {

bool decode_mma(Decoder&, const Statement&, Instruction&);
bool decode_matrix_move(Decoder&, const Statement&, Instruction&);
bool decode_wgmma(Decoder&, const Statement&, Instruction&);

struct Shape {
  int m = 0, n = 0, k = 0;
};
// The word m16n8k16 and where it stands; a Fault where there is none.
Shape shape_of(const Statement& statement, std::size_t& index);

// The elements of a vector operand, or the operand alone.
std::span<const Operand> elements_of(const Operand& operand);

}  // namespace cnnkernels::emulator
