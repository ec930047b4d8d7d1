// Launches, as Python sees them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dim3.h"

namespace cnnkernels::interpreter {

// Called on the launching OS thread around a launch: Python's lock is let go meanwhile.
struct LaunchHooks {
  void* (*before)() = nullptr;
  void (*after)(void*) = nullptr;
};
void set_launch_hooks(LaunchHooks hooks);

// A launch that was asked for, its extents found legal.
struct Launched {
  dim3 grid, block, cluster;
  std::size_t shared_bytes;
};
// From set_recording(true) on launches are only noted, and nothing runs: so tensors may be of any size, and
// lie nowhere. Returns what was noted since.
std::vector<Launched> set_recording(bool on);

// What all launches since the last reset did: blocks, switches, barriers, meetings and the models' own
// counts.
std::map<std::string, std::uint64_t> statistics();
void reset_statistics();

}  // namespace cnnkernels::interpreter
