#include "sm90_probe.h"

#include "../ptx/site.h"

#if !defined(CNN_INTERPRETER)

namespace cnnkernels {

namespace {

// Never launched. It gives its shared memory a use.
CNN_KERNEL(kProbeBytes / 4, 1) probe(int* numbers) {
#if CNN_SM90A
  CNN_SHARED(int, all, [kProbeBytes / 4]);
  all[threadIdx.x] = numbers[threadIdx.x];
  __syncthreads();
  numbers[threadIdx.x] = all[numbers[0]];
#else
  left_out();
#endif
}

}  // namespace

const void* sm90a_probe() { return reinterpret_cast<const void*>(&probe); }

}  // namespace cnnkernels

#endif
