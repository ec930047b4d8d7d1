// Memory between two pages that no launch may touch: for tests, as the interpreter has it
// (interpreter/guard_pages.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../launch.h"

namespace cnnkernels::emulator::runtime {

// `after`: a guard follows the last byte at once, else one precedes the first. The bytes are a NaN pattern.
std::uintptr_t guarded_alloc(std::size_t bytes, bool after);
// Throws std::invalid_argument for a pointer that guarded_alloc has not returned.
void guarded_free(std::uintptr_t pointer);
std::vector<Range> guards();

}  // namespace cnnkernels::emulator::runtime
