// Kernels for the profiler's tests: what they do at memory is known to the last wavefront.
#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {
namespace {

constexpr int kSide = 32;

// A square of 32 x 32 numbers, transposed by 8 warps of a block on the way through shared memory. A row of
// kPitch numbers: with 32 a column lies in one bank, with 33 in all of them.
template <int kPitch>
CNN_KERNEL(256, 1)
transpose(const int* in, int* out) {
  CNN_SHARED(int, square, [kSide * kPitch]);
  const int lane = threadIdx.x % kSide, warp = threadIdx.x / kSide;
  for (int row = warp; row < kSide; row += 8) square[row * kPitch + lane] = in[row * kSide + lane];
  __syncthreads();
  for (int row = warp; row < kSide; row += 8) out[row * kSide + lane] = square[lane * kPitch + row];
}

CNN_TEST(profiled_transpose) {
  const Launch launch_of{dim3(1), dim3(256), 0, arguments.stream};
  const auto* in = arguments.pointer<const int>(0);
  auto* out = arguments.pointer<int>(1);
  if (arguments.number(2) == kSide)
    launch(transpose<kSide>, launch_of, in, out);
  else
    launch(transpose<kSide + 1>, launch_of, in, out);
}

}  // namespace
}  // namespace cnnkernels
