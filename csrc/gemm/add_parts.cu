#include "add_parts.h"

#include "../common/geometry.h"
#include "../common/launch.h"

namespace cnnkernels::gemm {

namespace {

constexpr int kThreads = 256;

template <class T>
CNN_KERNEL(kThreads, 1)
add_parts_kernel(const Accumulator<T>* parts, T* sum, std::int64_t count, int splits) {
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  Accumulator<T> total = parts[i];
  for (int split = 1; split < splits; ++split) total += parts[split * count + i];
  sum[i] = narrow<T>(total);
}

}  // namespace

void add_parts(DType dtype, const void* parts, void* sum, std::int64_t count, int splits,
               std::uintptr_t stream) {
  dispatch_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(add_parts_kernel<T>,
           Launch{dim3(static_cast<unsigned>(ceil_div(count, kThreads))), dim3(kThreads), 0, stream},
           static_cast<const Accumulator<T>*>(parts), static_cast<T*>(sum), count, splits);
  });
}

}  // namespace cnnkernels::gemm
