// Calls: arguments and results are copied between fixed places of a thread's local memory.
#pragma once

#include <cstddef>
#include <vector>

#include "emulator/ptx/instruction.h"

namespace cnnkernels::emulator {

struct Call : Details {
  struct Copy {
    std::size_t from, to, bytes;
  };
  std::vector<Copy> arguments, results;
};

// assert() of a kernel.
void fail_assertion(Warp& warp, const Instruction& instruction, Mask lanes);

}  // namespace cnnkernels::emulator
