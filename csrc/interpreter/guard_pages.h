// Memory that ends, or begins, flush against an inaccessible page: a kernel's access out of bounds becomes a
// fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cnnkernels::interpreter {

// `after`: the guard follows the last byte, else it precedes the first. The bytes are a NaN pattern.
void* guarded_alloc(std::size_t bytes, bool after);
// Throws std::invalid_argument for a pointer that guarded_alloc has not returned.
void guarded_free(void* pointer);
// "4 bytes past the end of a guarded allocation of 64 bytes", or nothing if there is none near.
std::string near_guarded(std::uintptr_t address);

}  // namespace cnnkernels::interpreter
