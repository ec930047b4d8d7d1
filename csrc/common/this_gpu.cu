// The GPU a launch goes to, looked up once a device, and the launch.
#include "cuda_versions.h"
#include "sm90_probe.h"
#include "launch.h"
#include "gpu.h"
#include "raised_limits.h"

#include <mutex>
#include <stdexcept>

#if defined(CNN_INTERPRETER)
#include "../interpreter/schedule.h"
#endif

namespace cnnkernels {

#if defined(CNN_INTERPRETER)

namespace {
Gpu gpu = kGpus[0];
}  // namespace

const Gpu& this_gpu() { return gpu; }
int this_device() { return 0; }
bool is_interpreter() { return true; }
CudaVersions cuda_versions() { return {}; }
void stand_for(const Gpu& other) {
  gpu = other;
  interpreter::set_most_shared_bytes(static_cast<std::size_t>(gpu.block_bytes()));
}

#else

namespace {

void check(cudaError_t status, const char* doing) {
  if (status != cudaSuccess) {
    cudaGetLastError();  // a launch error is not sticky: leave none behind for the next caller
    throw std::runtime_error(std::string(doing) + ": " +
                             explain_cuda_error(status, cudaGetErrorString(status), cuda_versions()));
  }
}

// Is sm_90a's code what the driver loads on the current device? A stream may be capturing: loading is nothing
// that a graph has to repeat.
bool loads_sm90a() {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  cudaFuncAttributes probe{};
  const cudaError_t status = cudaFuncGetAttributes(&probe, sm90a_probe());
  cudaThreadExchangeStreamCaptureMode(&mode);
  check(status, "loading the kernels");
  return probe.sharedSizeBytes >= kProbeBytes;
}

}  // namespace

int this_device() {
  int device = 0;
  check(cudaGetDevice(&device), "finding the current device");
  if (device >= kMostDevices) throw std::runtime_error("a device beyond the 64th");
  return device;
}

CudaVersions cuda_versions() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  return {CUDART_VERSION, driver};
}

bool is_interpreter() { return false; }
void stand_for(const Gpu&) { throw std::logic_error("only the interpreter stands for another GPU"); }

const Gpu& this_gpu() {
  static Gpu gpus[kMostDevices];
  static std::once_flag looked_up[kMostDevices];
  const int device = this_device();
  std::call_once(looked_up[device], [device] {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device), "reading a device's properties");
    gpus[device] =
        gpu_like(properties.name, 10 * properties.major + properties.minor, properties.multiProcessorCount);
    gpus[device].wgmma = loads_sm90a();
    gpus[device].shared_bytes = static_cast<std::int64_t>(properties.sharedMemPerMultiprocessor);
  });
  return gpus[device];
}

void start(const void* kernel, const Launch& how, void** parameters) {
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (how.shared_bytes > kWithoutAsking) {
    static RaisedLimits& limits = *new RaisedLimits;  // launches may come till the process ends
    limits.allow(kernel, this_device(), how.shared_bytes, [&] {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(how.shared_bytes)),
            "raising a kernel's shared memory limit");
    });
  }
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = how.cluster.x;
  cluster.val.clusterDim.y = how.cluster.y;
  cluster.val.clusterDim.z = how.cluster.z;

  cudaLaunchConfig_t config{};
  config.gridDim = how.grid;
  config.blockDim = how.block;
  config.dynamicSmemBytes = how.shared_bytes;
  config.stream = reinterpret_cast<cudaStream_t>(how.stream);
  config.attrs = &cluster;
  config.numAttrs = how.cluster.x * how.cluster.y * how.cluster.z > 1 ? 1 : 0;
  check(cudaLaunchKernelExC(&config, kernel, parameters), "launching a kernel");
}

#endif

int processors() { return this_gpu().processors; }

}  // namespace cnnkernels
