// CUDA's driver as far as the kernels' host code asks for it by name.
#pragma once

#include <string>

namespace cnnkernels::emulator::runtime {

struct EntryPoint {
  const char* name;
  unsigned since;  // the version of CUDA whose signature this is
  void* function;
};
const EntryPoint* entry_point(const std::string& name);  // null for any other

// Why the last tensor map of this thread was refused; empty if it was not. A CUresult says less.
const std::string& why_no_map();

}  // namespace cnnkernels::emulator::runtime
