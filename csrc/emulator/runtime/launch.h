// A launch as the driver takes it: refused as the current GPU would, else run in the emulator, at once.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

#include "../launch.h"
#include "../profile/profile.h"

namespace cnnkernels::emulator::runtime {

void register_kernel(const void* host, const char* name);
// Of every kernel that the module has, mangled, in the order of registration.
std::vector<std::string> registered();
const void* host_of(const std::string& name);  // null where there is no kernel of that name

cudaError_t launch(const void* host, const cudaLaunchConfig_t& how, void** arguments);
cudaError_t attributes(const void* host, cudaFuncAttributes& found);
// Of a kernel on the current GPU; none where it has no such kernel.
std::vector<std::size_t> parameter_sizes(const void* host);
cudaError_t set_attribute(const void* host, cudaFuncAttribute attribute, int value);

// What this thread's launches may touch, till it says otherwise; empty: anything.
void set_memory(std::vector<Range> ranges);

// While recording, launches that the GPU would accept are noted and nothing runs.
struct Launched {
  std::string kernel;
  Extent grid, block, cluster;
  std::uint32_t shared_bytes;
  std::vector<std::byte> parameters;
};
std::vector<Launched> set_recording(bool on);  // those noted so far

// While profiling, so many blocks of each launch run, 0: all, and what they execute is counted.
struct Profiled {
  Launched launched;
  int registers;  // of a thread; 0: not known
  Profile profile;
};
std::vector<Profiled> set_profiling(std::optional<std::uint64_t> blocks);  // those counted so far

struct Totals {
  std::uint64_t launches = 0;
  Counts counts;
};
Totals totals();
// Those that ran to their end since the last call, each with the architecture that its PTX is for.
std::set<std::pair<std::string, int>> kernels_run();

// What a run is wrapped in: Python lets go of its lock.
void set_around(void (*around)(const std::function<void()>& run));

}  // namespace cnnkernels::emulator::runtime
