#include "launch.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "device.h"
#include "guarded.h"
#include "images.h"
#include "mode.h"

namespace cnnkernels::emulator::runtime {

namespace {

struct Function {                                // a kernel on a GPU, as cudaFuncSetAttribute left it
  int most_shared_bytes = kSharedWithoutAsking;  // static and dynamic, until more is asked for
  bool large_clusters = false;
};

struct State {
  std::mutex mutex;
  std::map<const void*, std::string> names;
  std::vector<std::string> all;
  std::map<std::pair<const void*, int>, Function> functions;
  bool recording = false;
  std::vector<Launched> launched;
  std::optional<std::uint64_t> profiling;  // blocks of a launch
  std::vector<Profiled> profiled;
  Totals totals;
  std::set<std::pair<std::string, int>> run;
  void (*around)(const std::function<void()>&) = [](const std::function<void()>& run) { run(); };
};

State& state() {
  static State& only =
      *new State;  // kernels register before main, and launches may come till the process ends
  return only;
}

thread_local std::vector<Range> memory;

std::string text(const dim3& d) {
  return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
}

std::uint64_t product(const dim3& d) { return std::uint64_t{d.x} * d.y * d.z; }

bool within(const dim3& d, const unsigned (&most)[3]) {
  return d.x >= 1 && d.y >= 1 && d.z >= 1 && d.x <= most[0] && d.y <= most[1] && d.z <= most[2];
}

unsigned rounded_up(unsigned n, unsigned to) { return (n + to - 1) / to * to; }

// Registers are given to warps in units of 256, to an even number of them on each of an SM's four parts.
unsigned registers_of_block(unsigned threads, int registers) {
  constexpr unsigned kParts = 4, kUnit = 256;
  return rounded_up(rounded_up(threads, kWarp) / kWarp, kParts) *
         rounded_up(static_cast<unsigned>(registers) * kWarp, kUnit);
}

// The kernel on the current GPU, or the error and nullptr.
const Kernel* find(const void* host, cudaError_t& status) {
  std::string name;
  {
    const std::lock_guard lock(state().mutex);
    if (const auto found = state().names.find(host); found != state().names.end()) name = found->second;
  }
  const Gpu& on = gpu(current_device());
  Missing missing = Missing::kernel;
  const Kernel* kernel = name.empty() ? nullptr : load(name, on.architecture, missing);
  if (kernel != nullptr) return kernel;
  const std::string where = " for " + std::string(on.name) + ", sm_" + std::to_string(on.architecture);
  status = missing == Missing::image ? fail(cudaErrorNoKernelImageForDevice, "of " + name + where)
                                     : fail(cudaErrorInvalidDeviceFunction, "'" + name + "'" + where);
  return nullptr;
}

Function function(const void* host) {
  const std::lock_guard lock(state().mutex);
  return state().functions[{host, current_device()}];
}

cudaError_t check_cluster(const dim3& cluster, const dim3& grid, bool large) {
  const Gpu& on = gpu(current_device());
  const Capability& can = capability(on.architecture);
  const auto most = static_cast<std::uint64_t>(large ? can.largest_cluster : can.portable_cluster);
  const auto refuse = [&](const std::string& why) {
    return fail(cudaErrorInvalidClusterSize, "cluster " + text(cluster) + why);
  };
  if (product(cluster) == 0) return refuse(": an extent of 0");
  if (most == 0) return refuse(": " + std::string(on.name) + " has no clusters");
  if (product(cluster) > most) return refuse(", of " + std::to_string(most) + " blocks at most");
  if (grid.x % cluster.x != 0 || grid.y % cluster.y != 0 || grid.z % cluster.z != 0)
    return refuse(": does not divide grid " + text(grid));
  return cudaSuccess;
}

// A launch's cluster, which is all that its attributes may say here.
cudaError_t read_attributes(const cudaLaunchConfig_t& how, dim3& cluster, bool& asked) {
  for (unsigned i = 0; i < how.numAttrs; ++i) {
    const cudaLaunchAttribute& a = how.attrs[i];
    if (a.id == cudaLaunchAttributeIgnore) continue;
    if (a.id != cudaLaunchAttributeClusterDimension)
      return fail(cudaErrorNotSupported, "launch attribute " + std::to_string(a.id) + " without a device");
    cluster = dim3(a.val.clusterDim.x, a.val.clusterDim.y, a.val.clusterDim.z);
    asked = true;
  }
  return cudaSuccess;
}

// In the order in which the driver's documentation lists them; of several faults a real driver may name
// another.
cudaError_t check(const Kernel& kernel, const Function& allowed, const cudaLaunchConfig_t& how,
                  const dim3& cluster, bool in_clusters) {
  const auto stream = reinterpret_cast<std::uintptr_t>(how.stream);
  if (stream > 2)  // the default streams: nothing else was ever made here
    return fail(cudaErrorInvalidResourceHandle, "stream " + std::to_string(stream));
  if (!within(how.gridDim, kGridExtent))
    return fail(cudaErrorInvalidConfiguration, "grid " + text(how.gridDim));
  const dim3& block = how.blockDim;
  if (!within(block, kBlockExtent) || product(block) > kBlockThreads)
    return fail(cudaErrorInvalidConfiguration, "block " + text(block));
  const auto threads = static_cast<unsigned>(product(block));
  if (in_clusters)
    if (const cudaError_t bad = check_cluster(cluster, how.gridDim, allowed.large_clusters);
        bad != cudaSuccess)
      return bad;
  if (threads > kernel.entry->most_threads)
    return fail(cudaErrorLaunchOutOfResources, std::to_string(threads) +
                                                   " threads, the kernel was compiled for " +
                                                   std::to_string(kernel.entry->most_threads));
  if (const unsigned registers = registers_of_block(threads, kernel.usage.registers); registers > kRegisters)
    return fail(cudaErrorLaunchOutOfResources, std::to_string(threads) + " threads take " +
                                                   std::to_string(registers) + " registers, of " +
                                                   std::to_string(kRegisters));
  const std::size_t bytes = how.dynamicSmemBytes + static_cast<std::size_t>(kernel.usage.shared_bytes);
  if (bytes > static_cast<std::size_t>(allowed.most_shared_bytes))
    return fail(cudaErrorInvalidValue, std::to_string(bytes) + " bytes of shared memory, of " +
                                           std::to_string(allowed.most_shared_bytes) +
                                           " that the kernel may have");
  return cudaSuccess;
}

Extent extent(const dim3& d) { return {d.x, d.y, d.z}; }

emulator::Launch described(const Kernel& kernel, const cudaLaunchConfig_t& how, const dim3& cluster,
                           void** arguments) {
  emulator::Launch launch;
  launch.entry = kernel.entry->name;
  launch.grid = extent(how.gridDim);
  launch.block = extent(how.blockDim);
  launch.cluster = extent(cluster);
  launch.shared_bytes = static_cast<std::uint32_t>(how.dynamicSmemBytes);
  for (std::size_t i = 0; i < kernel.entry->parameters.size(); ++i) {
    const Parameter& p = kernel.entry->parameters[i];
    launch.parameters.resize(p.offset + p.bytes);
    std::memcpy(launch.parameters.data() + p.offset, arguments[i], p.bytes);
  }
  return launch;
}

}  // namespace

void register_kernel(const void* host, const char* name) {
  const std::lock_guard lock(state().mutex);
  if (state().names.emplace(host, name).second) state().all.emplace_back(name);
}

std::vector<std::string> registered() {
  const std::lock_guard lock(state().mutex);
  return state().all;
}

const void* host_of(const std::string& name) {
  const std::lock_guard lock(state().mutex);
  for (const auto& [host, known] : state().names)
    if (known == name) return host;
  return nullptr;
}

cudaError_t launch(const void* host, const cudaLaunchConfig_t& how, void** arguments) {
  if (const cudaError_t status = broken(); status != cudaSuccess) return status;
  make_context();
  cudaError_t status = cudaSuccess;
  const Kernel* kernel = find(host, status);
  if (kernel == nullptr) return status;
  dim3 cluster(1, 1, 1);
  bool in_clusters = false;
  status = read_attributes(how, cluster, in_clusters);
  if (status == cudaSuccess) status = check(*kernel, function(host), how, cluster, in_clusters);
  if (status != cudaSuccess) return status;

  const emulator::Launch launch = described(*kernel, how, cluster, arguments);
  const Launched launched{launch.entry,   launch.grid,         launch.block,
                          launch.cluster, launch.shared_bytes, launch.parameters};
  std::optional<std::uint64_t> profiling;
  {
    const std::lock_guard lock(state().mutex);
    ++state().totals.launches;
    if (state().recording) {
      state().launched.push_back(launched);
      return cudaSuccess;
    }
    profiling = state().profiling;
  }
  Mode mode = runtime::mode();
  mode.memory = memory;
  mode.guards = guards();
  Counts counts;
  Profile found;
  try {
    state().around([&] {
      if (profiling)
        found = profile(*kernel->program, launch, mode, *profiling);
      else
        counts = run(*kernel->program, launch, mode);
    });
  } catch (const std::exception& fault) {
    break_device(cudaErrorLaunchFailure, fault.what());
    throw;  // a GPU would say no more than the code, later
  }
  const std::lock_guard lock(state().mutex);
  if (profiling) state().profiled.push_back({launched, kernel->usage.registers, std::move(found)});
  state().totals.counts.warp_instructions += counts.warp_instructions;
  state().totals.counts.thread_instructions += counts.thread_instructions;
  state().run.emplace(launch.entry, kernel->ptx_architecture);
  return cudaSuccess;
}

cudaError_t attributes(const void* host, cudaFuncAttributes& found) {
  if (const cudaError_t status = broken(); status != cudaSuccess) return status;
  make_context();
  cudaError_t status = cudaSuccess;
  const Kernel* kernel = find(host, status);
  if (kernel == nullptr) return status;
  const Function allowed = function(host);
  found = {};
  found.sharedSizeBytes = static_cast<std::size_t>(kernel->usage.shared_bytes);
  found.numRegs = kernel->usage.registers;
  found.ptxVersion = kernel->ptx_architecture;
  found.binaryVersion = kernel->code.machine ? kernel->code.architecture : gpu(current_device()).architecture;
  unsigned threads = std::min(kBlockThreads, kernel->entry->most_threads);
  while (registers_of_block(threads, kernel->usage.registers) > kRegisters) threads -= kWarp;
  found.maxThreadsPerBlock = static_cast<int>(threads);
  found.maxDynamicSharedSizeBytes = allowed.most_shared_bytes - kernel->usage.shared_bytes;
  found.nonPortableClusterSizeAllowed = allowed.large_clusters;
  return cudaSuccess;
}

std::vector<std::size_t> parameter_sizes(const void* host) {
  cudaError_t status = cudaSuccess;
  std::vector<std::size_t> sizes;
  if (const Kernel* kernel = find(host, status); kernel != nullptr)
    for (const Parameter& p : kernel->entry->parameters) sizes.push_back(p.bytes);
  return sizes;
}

cudaError_t set_attribute(const void* host, cudaFuncAttribute attribute, int value) {
  if (const cudaError_t status = broken(); status != cudaSuccess) return status;
  make_context();
  cudaError_t status = cudaSuccess;
  const Kernel* kernel = find(host, status);
  if (kernel == nullptr) return status;
  const auto most = static_cast<int>(gpu(current_device()).block_bytes());
  const std::lock_guard lock(state().mutex);
  Function& allowed = state().functions[{host, current_device()}];
  switch (attribute) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
      if (value < 0 || value > most - kernel->usage.shared_bytes)
        return fail(cudaErrorInvalidValue,
                    std::to_string(value) + " bytes of shared memory beside the kernel's " +
                        std::to_string(kernel->usage.shared_bytes) + ", of " + std::to_string(most));
      allowed.most_shared_bytes = value + kernel->usage.shared_bytes;
      return cudaSuccess;
    case cudaFuncAttributePreferredSharedMemoryCarveout:  // changes nothing that can be seen here
      return value >= -1 && value <= 100 ? cudaSuccess
                                         : fail(cudaErrorInvalidValue, "carveout " + std::to_string(value));
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
      allowed.large_clusters = value != 0;
      return cudaSuccess;
    default:
      return fail(cudaErrorNotSupported,
                  "kernel attribute " + std::to_string(attribute) + " without a device");
  }
}

void set_memory(std::vector<Range> ranges) { memory = std::move(ranges); }

std::vector<Launched> set_recording(bool on) {
  const std::lock_guard lock(state().mutex);
  state().recording = on;
  return std::exchange(state().launched, {});
}

std::vector<Profiled> set_profiling(std::optional<std::uint64_t> blocks) {
  const std::lock_guard lock(state().mutex);
  state().profiling = blocks;
  return std::exchange(state().profiled, {});
}

Totals totals() {
  const std::lock_guard lock(state().mutex);
  return state().totals;
}

std::set<std::pair<std::string, int>> kernels_run() {
  const std::lock_guard lock(state().mutex);
  return std::exchange(state().run, {});
}

void set_around(void (*around)(const std::function<void()>&)) { state().around = around; }

}  // namespace cnnkernels::emulator::runtime
