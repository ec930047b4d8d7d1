#include "cuda_versions.h"

namespace cnnkernels {

namespace {

std::string name(int version) {
  return "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

std::string oldest_driver(int runtime) {
  const int major = runtime / 1000;
  return major < 12 ? "450" : major == 12 ? "525" : "580";  // CUDA's table of minor version compatibility
}

std::string why_not_driver(const CudaVersions& v) {
  if (v.driver / 1000 >= v.runtime / 1000) return "";
  const std::string needs = "the kernels were built with " + name(v.runtime) + ", which needs release " +
                            oldest_driver(v.runtime) + " of the driver or later";
  if (v.driver == 0) return "there is no CUDA driver here: " + needs;
  return "the driver here is too old, it serves " + name(v.driver) + ": " + needs +
         "; update the driver, or build the kernels with CUDA " + std::to_string(v.driver / 1000) +
         " (NVCC=its nvcc)";
}

std::string explain_cuda_error(int status, const std::string& text, const CudaVersions& v) {
  const std::string build = "build them with its compute capability in CNNKERNELS_CUDA_ARCHS";
  switch (status) {
    case 34:  // cudaErrorStubLibrary
    case 35:  // cudaErrorInsufficientDriver
    case 36:  // cudaErrorCallRequiresNewerDriver
    {
      const std::string why = why_not_driver(v);
      return why.empty() ? text : why;
    }
    case 98:   // cudaErrorInvalidDeviceFunction
    case 200:  // cudaErrorInvalidKernelImage
    case 209:  // cudaErrorNoKernelImageForDevice
      return text + ": the kernels were not built for this GPU (`cnnkernels info` says for which), or " +
             "CUDA_FORCE_PTX_JIT=1 asks for PTX that they have not: " + build +
             ", or +PTX behind an older one";
    case 218:  // cudaErrorInvalidPtx
    case 222:  // cudaErrorUnsupportedPtxVersion
      return text + ": for this GPU the kernels are PTX of " + name(v.runtime) +
             ", and the driver, which serves " + name(v.driver) +
             ", cannot compile it: update the driver, or " + build;
    case 221:  // cudaErrorJitCompilerNotFound
    case 223:  // cudaErrorJitCompilationDisabled
      return text + ": for this GPU the kernels are PTX, which the driver has to compile: " + build;
    default:
      return text;
  }
}

}  // namespace cnnkernels
