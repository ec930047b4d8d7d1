// Which lane and register of a warp holds which element of a matrix: the layouts of mma.sync, which are
// wgmma's too. Lane l is g = l / 4 and c = l % 4; a register holds 32 bits' worth of elements, the lowest
// bits first.
#pragma once

#include <cstdint>
#include <span>

#include "emulator/machine/state.h"
#include "emulator/tensor_cores/product.h"

namespace cnnkernels::emulator {

// Register `index` of A, which has 16 rows (8: every register has the rows g): rows g and g + 8 alternate.
inline int row_of_a(int lane, int index, int rows) { return lane / 4 + (rows == 16 ? 8 * (index & 1) : 0); }
// Element `part` of that register; `elements` are in one.
inline int depth_of_a(int lane, int index, int rows, int elements, int part) {
  const int block = rows == 16 ? index >> 1 : index;
  return block * 4 * elements + (lane & 3) * elements + part;
}
inline int column_of_b(int lane) { return lane / 4; }
inline int depth_of_b(int lane, int index, int elements, int part) {
  return index * 4 * elements + (lane & 3) * elements + part;
}
// Of D in 32 bits: four registers are 16 rows by 8 columns, and so on for every 8 columns.
inline int row_of_d(int lane, int index) { return lane / 4 + 8 * (index >> 1 & 1); }
inline int column_of_d(int lane, int index) { return 8 * (index >> 2) + 2 * (lane & 3) + (index & 1); }
// Of D in pairs of halves: two registers are 16 rows by 8 columns.
inline int row_of_pair(int lane, int index) { return lane / 4 + 8 * (index & 1); }
inline int column_of_pair(int lane, int index) { return 8 * (index >> 1) + 2 * (lane & 3); }

void gather_a(Warp& warp, std::span<const Slot> registers, Type type, int rows, bool negated,
              Operands& operands);
void gather_b(Warp& warp, std::span<const Slot> registers, Type type, Operands& operands);

// Where accumulators are read and written: lanes of a register, seen as 32 bits.
using Register = std::uint32_t*;

// D = sums + C, in registers of the layouts above. `read` and `write` may be the same.
void add_f32(const double (*sums)[kRows], std::span<const Register> read, std::span<const Register> write);
void add_f16(const double (*sums)[kRows], std::span<const Register> read, std::span<const Register> write);
void add_s32(const std::int32_t (*sums)[kRows], std::span<const Register> read,
             std::span<const Register> write, bool saturate);

}  // namespace cnnkernels::emulator
