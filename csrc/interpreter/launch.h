// Launches, as Python sees them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace cnnkernels::interpreter {

// Called on the launching OS thread around a launch: Python's lock is let go meanwhile.
struct LaunchHooks {
  void* (*before)() = nullptr;
  void (*after)(void*) = nullptr;
};
void set_launch_hooks(LaunchHooks hooks);

// What all launches since the last reset did: blocks, switches, barriers, meetings and the models' own
// counts.
std::map<std::string, std::uint64_t> statistics();
void reset_statistics();

}  // namespace cnnkernels::interpreter
