#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {

// out[i] = sum of the block's in, by a tree in shared memory and a shuffle within the last warp
CNN_KERNEL(256, 1) block_sum(const float* in, float* out) {
  CNN_SHARED(float, partial, [256]);
  const int t = threadIdx.x;
  partial[t] = in[blockIdx.x * 256 + t];
  __syncthreads();
  for (int n = 128; n >= 32; n /= 2) {
    if (t < n) partial[t] += partial[t + n];
    __syncthreads();
  }
  if (t >= 32) return;
  float sum = partial[t];
  for (int n = 16; n > 0; n /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, n);
  if (t == 0) out[blockIdx.x] = sum;
}

CNN_TEST(block_sum_test) {
  launch(block_sum, Launch{dim3(unsigned(arguments.number(2))), dim3(256), 0, arguments.stream},
         arguments.pointer<const float>(0), arguments.pointer<float>(1));
}

}  // namespace cnnkernels
