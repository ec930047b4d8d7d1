// Which code the driver loaded: sm_90a's, or something older, in which the kernels that use wgmma are empty.
// No number of the build or of the GPU tells: CUDA_FORCE_PTX_JIT=1, say, passes machine code over.
#pragma once

namespace cnnkernels {

// A kernel with that much static shared memory in sm_90a's code, and none elsewhere.
const void* sm90a_probe();
inline constexpr int kProbeBytes = 4096;

}  // namespace cnnkernels
