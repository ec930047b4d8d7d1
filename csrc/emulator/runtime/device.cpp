#include "device.h"

#include <atomic>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <utility>

namespace cnnkernels::emulator::runtime {

namespace {

constexpr Capability kCapabilities[] = {
    {80, 2048, 32, 0, 0},  {86, 1536, 16, 0, 0},  {89, 1536, 24, 0, 0},
    {90, 2048, 32, 8, 16}, {120, 1536, 24, 8, 8},
};

constexpr bool all_known() {
  for (const Gpu& known : kGpus) {
    bool found = false;
    for (const Capability& c : kCapabilities) found = found || c.architecture == known.architecture;
    if (!found) return false;
  }
  return true;
}
static_assert(all_known(), "a GPU of common/gpu.h has a compute capability that is not here");

int device_named(const std::string& name) { return static_cast<int>(&gpu_named(name.c_str()) - kGpus); }

// CUDA keeps a current device for each thread. Only the kernels' host code calls this runtime, and it only
// ever sets the device that it has just got, so one for all threads does, which Python changes between calls.
std::atomic<int>& current() {
  static std::atomic<int> device = [] {
    const char* name = std::getenv("CNNKERNELS_EMULATED_GPU");
    try {
      return device_named(name == nullptr || *name == '\0' ? "h200" : name);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("CNNKERNELS_EMULATED_GPU: ") + error.what());
    }
  }();
  return device;
}

struct Failure {
  cudaError_t status = cudaSuccess;
  std::string why;
};

thread_local bool context = false;
thread_local cudaError_t last = cudaSuccess;
thread_local Failure explained;  // outlives the taking of the error, after which its text is asked for
std::mutex device_mutex;
Failure broken_by;

struct Text {
  cudaError_t status;
  const char* text;
};
constexpr Text kTexts[] = {
    {cudaSuccess, "no error"},
    {cudaErrorInvalidValue, "invalid argument"},
    {cudaErrorInvalidConfiguration, "invalid configuration argument"},
    {cudaErrorInvalidDeviceFunction, "invalid device function"},
    {cudaErrorInvalidDevice, "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "invalid resource handle"},
    {cudaErrorIllegalAddress, "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "unspecified launch failure"},
    {cudaErrorNotSupported, "operation not supported"},
    {cudaErrorInvalidClusterSize, "cluster misconfiguration"},
};

}  // namespace

const Capability& capability(int architecture) {
  for (const Capability& c : kCapabilities)
    if (c.architecture == architecture) return c;
  throw std::logic_error("no compute capability " + std::to_string(architecture));
}

int device_count() { return static_cast<int>(std::size(kGpus)); }
const Gpu& gpu(int device) { return kGpus[device]; }
int current_device() { return current(); }

cudaError_t make_current(int device) {
  if (device < 0 || device >= device_count())
    return fail(cudaErrorInvalidDevice, std::to_string(device) + " of " + std::to_string(device_count()));
  current() = device;
  return cudaSuccess;
}

void stand_for(const std::string& name) { current() = device_named(name); }

void make_context() { context = true; }
bool has_context() { return context; }

cudaError_t fail(cudaError_t status, const std::string& why) {
  last = status;
  explained = {status, why};
  return status;
}

cudaError_t last_error() { return last; }
cudaError_t take_last_error() { return std::exchange(last, cudaSuccess); }

const char* text_of(cudaError_t status) {
  static thread_local std::string text;
  text = "unrecognized error code";
  for (const Text& known : kTexts)
    if (known.status == status) text = known.text;
  if (status != cudaSuccess && explained.status == status) text += " (" + explained.why + ")";
  return text.c_str();
}

cudaError_t broken() {
  const std::lock_guard lock(device_mutex);
  return broken_by.status == cudaSuccess ? cudaSuccess : fail(broken_by.status, broken_by.why);
}

void break_device(cudaError_t status, const std::string& why) {
  const std::lock_guard lock(device_mutex);
  broken_by = {status, "an earlier kernel's fault, reset_device() forgets it: " + why};
}

void reset_device() {
  const std::lock_guard lock(device_mutex);
  broken_by = {};
  last = cudaSuccess;
}

}  // namespace cnnkernels::emulator::runtime
