// A CUDA runtime without a device, for csrc/common/this_gpu.cu: the GPU, the driver and what it loads are
// what the environment says. Prints what the kernels would take the GPU for, or the error.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>

#include "common/cuda_versions.h"
#include "common/gpu.h"

namespace {

int number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}
cudaError_t status(const char* name) { return static_cast<cudaError_t>(number(name)); }
cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

}  // namespace

extern "C" {
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {}

cudaError_t cudaGetDevice(int* device) { return *device = 0, status("FAKE_FIRST_CALL"); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
  std::memset(found, 0, sizeof *found);
  std::strcpy(found->name, "NVIDIA H200");
  found->major = 9;
  found->multiProcessorCount = 132;
  found->sharedMemPerMultiprocessor = 228 << 10;
  found->sharedMemPerBlockOptin = 227 << 10;
  found->reservedSharedMemPerBlock = 1 << 10;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
  std::memset(found, 0, sizeof *found);
  found->sharedSizeBytes = number("FAKE_SHARED_BYTES");
  // Loading is prohibited while a stream of this thread captures in any other mode.
  return capture_mode == cudaStreamCaptureModeRelaxed ? status("FAKE_LOADING")
                                                      : cudaErrorStreamCaptureUnsupported;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return std::swap(capture_mode, *mode), cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = number("FAKE_DRIVER"), cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "the error's own text"; }

// Linked, and of no consequence here.
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 0, cudaSuccess; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaSuccess; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaSuccess; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaSuccess; }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return cudaSuccess; }
}

int main() {
  std::cout << cnnkernels::cuda_versions().runtime << '\n';
  try {
    const cnnkernels::Gpu gpu = cnnkernels::this_gpu();
    const char* why = cnnkernels::why_not_wgmma(gpu);
    std::cout << gpu.name << ", wgmma: " << (why == nullptr ? "yes" : why) << '\n';
  } catch (const std::exception& error) {
    std::cout << error.what() << '\n';
  }
  if (capture_mode != cudaStreamCaptureModeGlobal) std::cout << "the capture mode was not put back\n";
}
