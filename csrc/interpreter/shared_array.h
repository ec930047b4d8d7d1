// What CNN_SHARED and CNN_DYNAMIC_SHARED expand to.
#pragma once

#include <cstddef>

namespace cnnkernels::interpreter {

// One a call site and template instance: its address is the key of the slot it gets in the block's shared
// memory.
struct SharedArray {
  const char* name;
  const char* file;
  unsigned line;
};

void* dynamic_shared();
void* shared_array(const SharedArray& key, std::size_t bytes, std::size_t alignment);

}  // namespace cnnkernels::interpreter
