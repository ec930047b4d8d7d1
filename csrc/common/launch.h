// The only way a kernel is started, on a GPU and in the interpreter alike.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "device.h"

namespace cnnkernels {

struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic shared memory
  std::uintptr_t stream = 0;     // cudaStream_t; the interpreter runs at once
  dim3 cluster = dim3(1, 1, 1);
};

#if defined(CNN_INTERPRETER)

template <class... P, class... A>
void launch(void (*kernel)(P...), const Launch& how, A... arguments) {
  // By reference: run() returns when the kernel has. (By value, GCC 12 under -ftrivial-auto-var-init clears
  // bytes of a large array's elements for padding when it copies them into the closure.)
  interpreter::run(how.grid, how.block, how.cluster, how.shared_bytes,
                   [&] { kernel(static_cast<P>(arguments)...); });
}

#else

inline void check(cudaError_t status, const char* doing) {
  if (status != cudaSuccess) {
    cudaGetLastError();  // a launch error is not sticky: leave none behind for the next caller
    throw std::runtime_error(std::string(doing) + ": " + cudaGetErrorString(status));
  }
}

template <class... P, class... A>
void launch(void (*kernel)(P...), const Launch& how, A... arguments) {
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (how.shared_bytes > kWithoutAsking) {
    check(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(how.shared_bytes)),
        "raising a kernel's shared memory limit");
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
  check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), "launching a kernel");
}

#endif

}  // namespace cnnkernels
