// What a build of the kernels asks of the driver, and what the CUDA runtime's errors mean where the two do
// not go together: pure functions. A version is a number as CUDA's headers have it: 12040 is 12.4.
#pragma once

#include <string>

namespace cnnkernels {

struct CudaVersions {
  int runtime = 0;  // the kernels were built with; 0: the interpreter, which has none
  int driver = 0;   // the newest the driver here serves; 0: there is none
};
CudaVersions cuda_versions();  // of this module

// The oldest release of the driver that serves a runtime. All runtimes of a major have the same.
std::string oldest_driver(int runtime);

// Why a driver cannot serve a runtime; empty where it can.
std::string why_not_driver(const CudaVersions& versions);

// A cudaError_t with its own text, and what to do about it where that is known.
std::string explain_cuda_error(int status, const std::string& text, const CudaVersions& versions);

}  // namespace cnnkernels
