// What went wrong in a kernel, and where.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "dim3.h"
#include "state.h"

namespace cnnkernels::interpreter {

class KernelFault : public std::runtime_error {
 public:
  // `file` is empty where the place is not known. thread is null for a fault of the block as a whole.
  KernelFault(const std::string& message, const char* file, unsigned line, const BlockView& block,
              const Thread* thread);

  std::string file;
  unsigned line = 0;
  uint3 block{};
  bool has_thread = false;
  uint3 thread{};
  unsigned warp = 0, lane = 0;
};

std::string text(uint3 index);
std::string text(Site site);  // file:line
std::string text(dim3 extent);
std::string hex_of_mask(std::uint32_t mask);
bool same_place(Site a, Site b);

// Makes SIGSEGV, SIGBUS and SIGFPE of a CUDA thread a fault of its block: to be called on the OS thread that
// is about to run one. Elsewhere those signals go where they went before.
void catch_signals();

// A signal that ended a CUDA thread. The handler fills it in and continues the host's stack.
struct Crash {
  int signal = 0;  // 0: none
  std::uintptr_t address = 0, program_counter = 0;
};
std::string describe(const Crash& crash);

}  // namespace cnnkernels::interpreter
