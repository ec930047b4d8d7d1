// The second pass of a reduction that was cut into parts: adds them in order, so the bits never change.
#pragma once

#include "geometry.h"
#include "launch.h"
#include "types.h"

namespace cnnkernels {

inline constexpr int kAddThreads = 256;

// sum[i] = parts[0][i] + parts[1][i] + ..., rounded once.
template <class T>
CNN_KERNEL(kAddThreads, 1)
add_parts(const Accumulator<T>* parts, T* sum, std::int64_t count, int splits) {
  const std::int64_t i = std::int64_t(blockIdx.x) * kAddThreads + threadIdx.x;
  if (i >= count) return;
  Accumulator<T> total = parts[i];
  for (int split = 1; split < splits; ++split) total += parts[split * count + i];
  sum[i] = narrow<T>(total);
}

template <class T>
void launch_add_parts(const void* parts, void* sum, std::int64_t count, int splits, std::uintptr_t stream) {
  launch(add_parts<T>,
         Launch{dim3(static_cast<unsigned>(ceil_div(count, kAddThreads))), dim3(kAddThreads), 0, stream},
         static_cast<const Accumulator<T>*>(parts), static_cast<T*>(sum), count, splits);
}

}  // namespace cnnkernels
