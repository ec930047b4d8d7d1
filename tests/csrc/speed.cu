// What the interpreter itself costs: threads that do nothing but take turns.
#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {
namespace {

CNN_KERNEL(1024, 1) only_barriers(int repeats) {
  for (int i = 0; i < repeats; ++i) __syncthreads();
}

CNN_KERNEL(1024, 1) only_shuffles(int repeats, unsigned* out) {
  unsigned x = threadIdx.x;
  for (int i = 0; i < repeats; ++i) x += __shfl_xor_sync(0xffffffffu, x, 1);
  if (x == 12345) *out = x;
}

CNN_KERNEL(1024, 1) nothing() {}

CNN_TEST(speed_barriers) {
  launch(only_barriers, Launch{dim3(1), dim3(unsigned(arguments.number(0))), 0, arguments.stream},
         int(arguments.number(1)));
}

CNN_TEST(speed_shuffles) {
  launch(only_shuffles, Launch{dim3(1), dim3(unsigned(arguments.number(0))), 0, arguments.stream},
         int(arguments.number(1)), arguments.pointer<unsigned>(2));
}

CNN_TEST(speed_blocks) {
  launch(nothing, Launch{dim3(unsigned(arguments.number(1))), dim3(unsigned(arguments.number(0))), 0,
                         arguments.stream});
}

}  // namespace
}  // namespace cnnkernels
