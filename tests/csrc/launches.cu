// Kernels that matter by what the host says of them: parameters, launch bounds, shared memory, clusters.
#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {
namespace {

struct Odd {
  std::int32_t pair[2];
  std::int8_t bytes[3];
  std::int8_t last;
};

// Of every size, with gaps between them; out[0] is their sum.
CNN_KERNEL(64, 1)
parameters(std::int8_t one, double eight, std::int16_t two, Odd odd, std::uint8_t byte, double* out) {
  if (threadIdx.x != 0 || blockIdx.x != 0) return;
  double sum = one + eight + two + byte;
  for (int i = 0; i < 2; ++i) sum += odd.pair[i];
  for (int i = 0; i < 3; ++i) sum += odd.bytes[i];
  out[0] = sum + odd.last;
}

// Static shared memory, which is padded as what is dynamic begins at a multiple of 1024, and some of that.
CNN_KERNEL(1024, 1) shares(int* out, int elements) {
  CNN_SHARED(int, fixed, [1250]);
  CNN_DYNAMIC_SHARED(memory);
  int* more = reinterpret_cast<int*>(memory);
  const int t = threadIdx.x;
  fixed[t] = t;
  if (t < elements) more[t] = t;
  __syncthreads();
  out[t] = fixed[blockDim.x - 1 - t] + (t < elements ? more[elements - 1 - t] : 0);
}

// Writes one element past what it is told it has.
CNN_KERNEL(32, 1) one_too_far(int* out, int elements) {
  const int t = threadIdx.x;
  if (t <= elements) out[t] = t;
}

CNN_TEST(launch_parameters) {
  const auto n = [&](int i) { return arguments.number(i); };
  const Odd odd{{static_cast<int>(n(3)), static_cast<int>(n(4))}, {1, 2, 3}, static_cast<std::int8_t>(n(5))};
  launch(parameters, Launch{dim3(3, 2), dim3(32), 0, arguments.stream}, static_cast<std::int8_t>(n(0)),
         static_cast<double>(n(1)) / 4, static_cast<std::int16_t>(n(2)), odd, static_cast<std::uint8_t>(n(6)),
         arguments.pointer<double>(7));
}

CNN_TEST(launch_shares) {
  const auto elements = static_cast<int>(arguments.number(1));
  launch(shares, Launch{dim3(1), dim3(256), elements * sizeof(int), arguments.stream},
         arguments.pointer<int>(0), elements);
}

CNN_TEST(launch_one_too_far) {
  launch(one_too_far, Launch{dim3(1), dim3(32), 0, arguments.stream}, arguments.pointer<int>(0),
         static_cast<int>(arguments.number(1)));
}

}  // namespace
}  // namespace cnnkernels
