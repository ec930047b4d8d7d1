// Kernels of CUTLASS's headers, launched as its device adapters do, without what those ask a device for.
// These sources are of the package nvidia-cutlass and are compiled only where it is installed.
#pragma once

#include <stdexcept>
#include <string>

#include <cute/tensor.hpp>
#include <cutlass/cutlass.h>
#include <cutlass/device_kernel.h>
#include <cutlass/kernel_hardware_info.h>

#include "../registry.h"

namespace cnnkernels::tests {

inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

template <class Kernel>
void launch(typename Kernel::Arguments arguments) {
  arguments.hw_info.sm_count =
      2 * cute::size(typename Kernel::ClusterShape{});  // persistent kernels go round
  if (!Kernel::can_implement(arguments)) throw std::invalid_argument("CUTLASS does not take this problem");
  auto params = Kernel::to_underlying_arguments(arguments, nullptr);
  void* parameters[] = {&params};
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {cute::size<0>(typename Kernel::ClusterShape{}),
                            cute::size<1>(typename Kernel::ClusterShape{}), 1};
  cudaLaunchConfig_t how{};
  how.gridDim = Kernel::get_grid_shape(params);
  how.blockDim = Kernel::get_block_shape();
  how.dynamicSmemBytes = Kernel::SharedStorageSize;
  how.attrs = &cluster;
  how.numAttrs = 1;
  const auto* kernel = reinterpret_cast<const void*>(&cutlass::device_kernel<Kernel>);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Kernel::SharedStorageSize));
  check(cudaLaunchKernelExC(&how, kernel, parameters));
}

}  // namespace cnnkernels::tests
