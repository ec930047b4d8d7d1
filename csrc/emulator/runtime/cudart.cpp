// CUDA's runtime as far as the host code of the kernels calls it, nvcc's part of that code included. A
// function that is not here is missed when the module is imported.
#include <cstring>
#include <string>
#include <utility>

#include <cuda_runtime_api.h>

#include "device.h"
#include "driver.h"
#include "launch.h"

namespace runtime = cnnkernels::emulator::runtime;

namespace {

thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

cudaError_t start(const void* host, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes,
                  cudaStream_t stream) {
  cudaLaunchConfig_t how{};
  how.gridDim = grid;
  how.blockDim = block;
  how.dynamicSmemBytes = shared_bytes;
  how.stream = stream;
  return runtime::launch(host, how, arguments);
}

}  // namespace

extern "C" {

// What nvcc's code calls when the module is loaded. The code itself is in the archive, by the kernels' names.
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  runtime::register_kernel(host, name);
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, std::size_t, int, int) {
}  // no host code copies

// And in the stub of each kernel, which makes a call of a kernel a launch. Ours are launched by address, so
// that nothing pushes what these pop.
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) {
  return runtime::fail(cudaErrorInvalidConfiguration, "no launch was begun");
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               std::size_t shared_bytes, cudaStream_t stream) {
  return start(kernel, grid, block, arguments, shared_bytes, stream);
}
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                             std::size_t shared_bytes, cudaStream_t stream) {
  return start(host, grid, block, arguments, shared_bytes, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* host, void** arguments) {
  return runtime::launch(host, *how, arguments);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void* host) {
  return runtime::attributes(host, *found);
}
cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  return runtime::set_attribute(host, attribute, value);
}

cudaError_t cudaGetDevice(int* device) {
  *device = runtime::current_device();
  return runtime::broken();
}
cudaError_t cudaSetDevice(int device) {
  const cudaError_t status = runtime::make_current(device);
  if (status == cudaSuccess) runtime::make_context();
  return status == cudaSuccess ? runtime::broken() : status;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int device) {
  if (device < 0 || device >= runtime::device_count())
    return runtime::fail(cudaErrorInvalidDevice, std::to_string(device));
  const cnnkernels::Gpu& gpu = runtime::gpu(device);
  const runtime::Capability& can = runtime::capability(gpu.architecture);
  *found = {};
  const std::string name = std::string("NVIDIA ") + gpu.device;
  std::strncpy(found->name, name.c_str(), sizeof found->name - 1);
  found->major = gpu.architecture / 10;
  found->minor = gpu.architecture % 10;
  found->multiProcessorCount = gpu.processors;
  found->warpSize = runtime::kWarp;
  found->maxThreadsPerBlock = runtime::kBlockThreads;
  found->maxThreadsPerMultiProcessor = can.threads;
  found->maxBlocksPerMultiProcessor = can.blocks;
  for (int i = 0; i < 3; ++i) {
    found->maxThreadsDim[i] = static_cast<int>(runtime::kBlockExtent[i]);
    found->maxGridSize[i] = static_cast<int>(runtime::kGridExtent[i]);
  }
  found->regsPerBlock = found->regsPerMultiprocessor = runtime::kRegisters;
  found->sharedMemPerBlock = runtime::kSharedWithoutAsking;
  found->sharedMemPerBlockOptin = static_cast<std::size_t>(gpu.block_bytes());
  found->sharedMemPerMultiprocessor = static_cast<std::size_t>(gpu.shared_bytes);
  found->reservedSharedMemPerBlock = static_cast<std::size_t>(gpu.shared_bytes - gpu.block_bytes());
  found->clusterLaunch = can.largest_cluster > 0;
  return cudaSuccess;
}

// The driver is as new as the runtime that the kernels were compiled with.
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned version,
                                             unsigned long long, cudaDriverEntryPointQueryResult* result) {
  const runtime::EntryPoint* found = runtime::entry_point(name);
  *function = nullptr;
  if (found == nullptr) {
    if (result != nullptr) *result = cudaDriverEntryPointSymbolNotFound;
    return runtime::fail(cudaErrorNotSupported, std::string(name) + " without a device");
  }
  const bool late = version < found->since;
  if (!late) *function = found->function;
  if (result != nullptr)
    *result = late ? cudaDriverEntryPointVersionNotSufficent : cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// Nothing captures here; the mode is remembered, as a caller puts it back.
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  if (*mode < cudaStreamCaptureModeGlobal || *mode > cudaStreamCaptureModeRelaxed)
    return runtime::fail(cudaErrorInvalidValue, "capture mode " + std::to_string(*mode));
  std::swap(capture_mode, *mode);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return runtime::take_last_error(); }
const char* cudaGetErrorString(cudaError_t status) { return runtime::text_of(status); }

}  // extern "C"
