// The CPU's wgmma. Accumulators are poisoned while they are in flight and written back by the wait that
// retires their last instruction. Operands are read by the same wait, or when the instruction is issued, as
// the delivery policy says: a tile that is refilled too early, or arrives too late, shows.
#pragma once

#include <cstdint>

#include "mma.h"

namespace cnnkernels::model {

// What one thread gives to one instruction.
struct Wgmma {
  OperandFormat format;
  int columns;
  bool a_mn_major, b_mn_major, accumulate;
  void* d;
  const std::uint32_t* a_registers;  // nullptr: A is in shared memory
  std::uint64_t a, b;                // descriptors
};

void check_descriptor(const void* start, std::uint32_t leading_bytes, std::uint32_t stride_bytes,
                      interpreter::Site site);
void wgmma(const Wgmma& mine, interpreter::Site site);
void wgmma_fence(interpreter::Site site);
void wgmma_commit(interpreter::Site site);
void wgmma_wait(int groups_left, interpreter::Site site);

}  // namespace cnnkernels::model
