// What ends a run or a parse: the kernel does what a GPU forbids, or says what the emulator does not know.
#pragma once

#include <stdexcept>
#include <string>

namespace cnnkernels::emulator {

// What is thrown. Where an instruction throws, the scheduler adds kernel, line, source, block, warp and
// thread.
struct Fault : std::runtime_error {
  explicit Fault(const std::string& message, int lane = -1) : std::runtime_error(message), lane(lane) {}
  int lane;  // of the warp that was running, where one lane alone is at fault
};

// As printf. The first where a thread is at fault, the second where no single one is.
[[noreturn]] void fault_of_lane(int lane, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string formatted(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace cnnkernels::emulator
