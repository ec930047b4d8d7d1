#include "gpu.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>

namespace cnnkernels {

namespace {

const char* why_no_code(const Gpu& gpu) {
  return gpu.wgmma ? nullptr
                   : "this build has no sm_90a code (CNNKERNELS_CUDA_ARCHS without 90), or "
                     "CUDA_FORCE_PTX_JIT=1 passes it over";
}

}  // namespace

const char* why_not_wgmma(const Gpu& gpu) {
  if (gpu.architecture != 90) return "wgmma and TMA's im2col are of compute capability 9.0 alone";
  return why_no_code(gpu);
}

const char* cannot_run_wgmma(const Gpu& gpu) {
  return is_interpreter() ? why_no_code(gpu) : why_not_wgmma(gpu);
}
static_assert(std::ranges::min(kGpus, {}, &Gpu::shared_bytes).block_bytes() == kEveryBlockBytes);
static_assert(std::ranges::all_of(kGpus, [](const Gpu& gpu) {
  return gpu.architecture != 90 || gpu.block_bytes() == kSm90BlockBytes;
}));

Gpu gpu_like(const char* device, int architecture, int processors) {
  for (const Gpu& known : kGpus)
    if (std::string_view(device).find(known.device) != std::string_view::npos &&
        known.architecture == architecture && known.processors == processors)
      return known;
  Gpu found = kGpus[0];
  for (const Gpu& known : kGpus)
    if (known.architecture <= architecture && known.architecture >= found.architecture) found = known;
  const double more = static_cast<double>(processors) / found.processors;
  for (double* rate :
       {&found.tensor16, &found.tensor_tf32, &found.fma32, &found.fma64, &found.memory, &found.l2})
    *rate *= more;
  found.architecture = architecture;
  found.processors = processors;
  return found;
}

const Gpu& gpu_named(const char* name) {
  std::string names;
  for (const Gpu& known : kGpus) {
    if (std::string_view(name) == known.name) return known;
    names += std::string(names.empty() ? "" : ", ") + known.name;
  }
  throw std::invalid_argument(std::string("no GPU is called '") + name + "' here, only " + names);
}

}  // namespace cnnkernels
