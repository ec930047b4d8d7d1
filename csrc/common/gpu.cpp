#include "gpu.h"

#include <algorithm>
#include <stdexcept>

namespace cnnkernels {

namespace {

const char* why_no_code(const Machine& machine) {
  return machine.wgmma ? nullptr
                       : "this build has no sm_90a code (CNNKERNELS_CUDA_ARCHS without 90), or "
                         "CUDA_FORCE_PTX_JIT=1 passes it over";
}

}  // namespace

const char* why_not_wgmma(const Machine& machine) {
  if (machine.architecture != 90) return "wgmma and TMA's im2col are of compute capability 9.0 alone";
  return why_no_code(machine);
}

const char* cannot_run_wgmma(const Machine& machine) {
  return is_interpreter() ? why_no_code(machine) : why_not_wgmma(machine);
}
static_assert(std::ranges::min(kMachines, {}, &Machine::shared_bytes).block_bytes() == kEveryBlockBytes);
static_assert(std::ranges::all_of(kMachines, [](const Machine& machine) {
  return machine.architecture != 90 || machine.block_bytes() == kHopperBlockBytes;
}));

Machine machine_like(const std::string& device, int architecture, int processors) {
  for (const Machine& known : kMachines)
    if (device.find(known.device) != std::string::npos && known.architecture == architecture &&
        known.processors == processors)
      return known;
  Machine found = kMachines[0];
  for (const Machine& known : kMachines)
    if (known.architecture <= architecture && known.architecture >= found.architecture) found = known;
  const double more = static_cast<double>(processors) / found.processors;
  for (double* rate :
       {&found.tensor16, &found.tensor_tf32, &found.fma32, &found.fma64, &found.memory, &found.l2})
    *rate *= more;
  found.architecture = architecture;
  found.processors = processors;
  return found;
}

const Machine& machine_named(const std::string& name) {
  std::string names;
  for (const Machine& known : kMachines) {
    if (name == known.name) return known;
    names += std::string(names.empty() ? "" : ", ") + known.name;
  }
  throw std::invalid_argument("no GPU is called '" + name + "' here, only " + names);
}

}  // namespace cnnkernels
