// Kernels with a fault each, for the interpreter alone: it must catch them. Where a template parameter says
// so, the same kernel without its fault.
#if defined(CNN_INTERPRETER)
#include <stdexcept>

#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {
namespace {

// Reverses the values of a block.
template <bool Faulty>
CNN_KERNEL(128, 1)
missing_syncthreads(const float* in, float* out) {
  CNN_SHARED(float, tile, [128]);
  const int t = threadIdx.x;
  tile[t] = in[t];
  if (!Faulty) __syncthreads();
  out[t] = tile[127 - t];
}

// out = for each stage the reversed values, added up; one stage of shared memory.
template <bool Faulty>
CNN_KERNEL(128, 1)
stage_refilled(const float* in, float* out, int stages) {
  CNN_SHARED(float, tile, [128]);
  const int t = threadIdx.x;
  float sum = 0;
  for (int s = 0; s < stages; ++s) {
    tile[t] = in[s * 128 + t];
    __syncthreads();
    sum += tile[127 - t];
    if (!Faulty) __syncthreads();
  }
  out[t] = sum;
}

template <bool Faulty>
CNN_KERNEL(32, 1)
missing_syncwarp(const float* in, float* out) {
  CNN_SHARED(float, tile, [32]);
  const int t = threadIdx.x;
  tile[t] = in[t];
  if (!Faulty) __syncwarp();
  out[t] = tile[31 - t];
}

CNN_KERNEL(128, 1) divergent_barrier() {
  if (threadIdx.x < 64) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

CNN_KERNEL(128, 1) deadlock() {
  if (threadIdx.x < 32) return;
  if (threadIdx.x < 64) {
    interpreter::bar_sync(3, 128, interpreter::Site::current());
  } else if (threadIdx.x < 80) {
    __syncwarp();
  } else if (threadIdx.x < 96) {
    interpreter::wait_until([] { return false; }, "a flag that nobody sets", interpreter::Site::current());
  } else {
    __syncthreads();
  }
}

CNN_KERNEL(64, 1) static_overrun(int index) {
  CNN_SHARED(int, first, [64]);
  CNN_SHARED(int, second, [64]);
  if (threadIdx.x == 0) first[index] = 1;
  second[threadIdx.x] = 2;
  __syncthreads();
}

CNN_KERNEL(64, 1) dynamic_overrun(int index) {
  CNN_DYNAMIC_SHARED(memory);
  if (threadIdx.x == 5) reinterpret_cast<short*>(memory)[index] = 1;
}

CNN_KERNEL(64, 1) copy(const float* in, float* out, int shift) {
  const int t = threadIdx.x;
  out[t] = in[t + shift];
}

CNN_KERNEL(32, 1) outside_mask() {
  if (threadIdx.x < 20) __syncwarp(0xffffu);
}

CNN_KERNEL(32, 1) exited_lane(int* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

// The lane leaves after the others have begun to wait for it.
CNN_KERNEL(64, 1) exits_later(int* out) {
  __syncthreads();
  if (threadIdx.x == 7) {
    interpreter::yield();
    return;
  }
  out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

CNN_KERNEL(32, 1) two_shuffles(int* out) {
  int x;
  if (threadIdx.x < 16) {
    x = __shfl_sync(0xffffffffu, 1, 0);
  } else {
    x = __shfl_sync(0xffffffffu, 2, 31);
  }
  out[threadIdx.x] = x;
}

CNN_KERNEL(32, 1) two_masks(int* out) {
  out[threadIdx.x] = __shfl_sync(threadIdx.x < 16 ? 0xffffffffu : 0xfffffffeu, 1, 4);
}

CNN_KERNEL(32, 1) source_outside(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1, 20);
}

CNN_KERNEL(32, 1) bad_width(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1, 24); }

CNN_KERNEL(32, 1) uninitialised_shared(float* out) {
  CNN_SHARED(float, tile, [33]);
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

CNN_KERNEL(64, 1) barrier_misuse(int kind) {
  const auto here = interpreter::Site::current();
  switch (kind) {
    case 0:
      interpreter::bar_sync(16, 64, here);
      break;
    case 1:
      interpreter::bar_sync(1, 63, here);
      break;
    case 2:
      interpreter::bar_sync(1, threadIdx.x < 32 ? 64 : 32, here);
      break;
    case 3:
      interpreter::bar_arrive(1, 0, here);
      break;
    default:
      interpreter::bar_sync(1, 96, here);
      break;
  }
}

int deep(int depth, volatile int* sink) {  // not a tail call: every frame stays
  volatile int frame[64];
  frame[0] = depth;
  const int below = depth == 0 ? 0 : deep(depth - 1, sink);
  *sink = frame[0];
  return below + frame[0];
}
CNN_KERNEL(64, 1) recursion(int depth, int* out) {
  if (threadIdx.x == 40) *out = deep(depth, out);
}

CNN_KERNEL(64, 1) wild(float* pointer) {
  __syncthreads();
  if (blockIdx.x == 3 && threadIdx.x == 33) *pointer = 1;
}

CNN_KERNEL(32, 1) divide(int divisor, int* out) { out[threadIdx.x] = int(threadIdx.x) / divisor; }

CNN_KERNEL(32, 1) throws() {
  if (threadIdx.x == 3) throw std::out_of_range("from a standard container");
  __syncthreads();
}

CNN_KERNEL(32, 1) trap() {
  if (blockIdx.x >= 2 && threadIdx.x == 9) __trap();
}

CNN_KERNEL(32, 1) much_static() {
  CNN_SHARED(char, big, [48 * 1024 + 1]);
  big[0] = 0;
}

CNN_KERNEL(32, 1) static_beside_dynamic() {
  CNN_DYNAMIC_SHARED(memory);
  CNN_SHARED(float, tile, [128]);
  memory[threadIdx.x] = 0;
  tile[threadIdx.x] = 0;
}

CNN_KERNEL(32, 1) nested() { launch(divide, Launch{dim3(1), dim3(32)}, 1, static_cast<int*>(nullptr)); }

// Adds up without an accumulator's first value.
template <bool Faulty>
CNN_KERNEL(32, 1)
unset_accumulator(const float* in, float* out) {
  float sum;
  if (!Faulty) sum = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
  for (int i = 0; i < 4; ++i) sum += in[threadIdx.x * 4 + i];
#pragma GCC diagnostic pop
  out[threadIdx.x] = sum;
}

// Data races that compute the right numbers here: only ThreadSanitizer sees them.
template <bool Faulty>
CNN_KERNEL(64, 1)
update(int* counter) {
  if (Faulty) {
    *counter += 1;
  } else {
    atomicAdd(counter, 1);
  }
}
CNN_KERNEL(32, 1) same_address(int* out) {
  if (threadIdx.x == 0) *out = 1;
}
template <bool Faulty>
CNN_KERNEL(64, 1)
unordered(int* out) {
  CNN_SHARED(int, value, );
  if (threadIdx.x == 0) value = 1;
  if (!Faulty) __syncthreads();
  if (threadIdx.x == 32) *out = value;
}

Launch one_block(unsigned threads, std::size_t shared_bytes = 0) {
  return Launch{dim3(1), dim3(threads), shared_bytes};
}

CNN_TEST(missing_syncthreads_test) {
  launch(arguments.number(0) ? missing_syncthreads<true> : missing_syncthreads<false>, one_block(128),
         arguments.pointer<const float>(1), arguments.pointer<float>(2));
}
CNN_TEST(stage_refilled_test) {
  launch(arguments.number(0) ? stage_refilled<true> : stage_refilled<false>, one_block(128),
         arguments.pointer<const float>(1), arguments.pointer<float>(2), int(arguments.number(3)));
}
CNN_TEST(missing_syncwarp_test) {
  launch(arguments.number(0) ? missing_syncwarp<true> : missing_syncwarp<false>, one_block(32),
         arguments.pointer<const float>(1), arguments.pointer<float>(2));
}
CNN_TEST(unset_accumulator_test) {
  launch(arguments.number(0) ? unset_accumulator<true> : unset_accumulator<false>, one_block(32),
         arguments.pointer<const float>(1), arguments.pointer<float>(2));
}
CNN_TEST(divergent_barrier_test) { launch(divergent_barrier, one_block(128)); }
CNN_TEST(deadlock_test) { launch(deadlock, one_block(128)); }
CNN_TEST(static_overrun_test) { launch(static_overrun, one_block(64), int(arguments.number(0))); }
CNN_TEST(dynamic_overrun_test) {
  launch(dynamic_overrun, one_block(64, std::size_t(arguments.number(0))), int(arguments.number(1)));
}
CNN_TEST(copy_test) {
  launch(copy, one_block(unsigned(arguments.number(3))), arguments.pointer<const float>(0),
         arguments.pointer<float>(1), int(arguments.number(2)));
}
CNN_TEST(outside_mask_test) { launch(outside_mask, one_block(32)); }
CNN_TEST(exited_lane_test) { launch(exited_lane, one_block(32), arguments.pointer<int>(0)); }
CNN_TEST(exits_later_test) { launch(exits_later, one_block(64), arguments.pointer<int>(0)); }
CNN_TEST(two_shuffles_test) { launch(two_shuffles, one_block(32), arguments.pointer<int>(0)); }
CNN_TEST(two_masks_test) { launch(two_masks, one_block(32), arguments.pointer<int>(0)); }
CNN_TEST(source_outside_test) { launch(source_outside, one_block(32), arguments.pointer<int>(0)); }
CNN_TEST(bad_width_test) { launch(bad_width, one_block(32), arguments.pointer<int>(0)); }
CNN_TEST(uninitialised_shared_test) {
  launch(uninitialised_shared, one_block(32), arguments.pointer<float>(0));
}
CNN_TEST(barrier_misuse_test) { launch(barrier_misuse, one_block(64), int(arguments.number(0))); }
CNN_TEST(recursion_test) {
  launch(recursion, one_block(64), int(arguments.number(0)), arguments.pointer<int>(1));
}
CNN_TEST(wild_test) { launch(wild, Launch{dim3(8), dim3(64)}, arguments.pointer<float>(0)); }
CNN_TEST(divide_test) { launch(divide, one_block(32), int(arguments.number(0)), arguments.pointer<int>(1)); }
CNN_TEST(throws_test) { launch(throws, one_block(32)); }
CNN_TEST(trap_test) { launch(trap, Launch{dim3(unsigned(arguments.number(0))), dim3(32)}); }
CNN_TEST(much_static_test) { launch(much_static, one_block(32)); }
CNN_TEST(static_beside_dynamic_test) {
  launch(static_beside_dynamic, one_block(32, std::size_t(arguments.number(0))));
}
CNN_TEST(nested_test) { launch(nested, one_block(32)); }
CNN_TEST(extents_test) {
  const auto extent = [&](std::size_t i) {
    return dim3(unsigned(arguments.number(i)), unsigned(arguments.number(i + 1)),
                unsigned(arguments.number(i + 2)));
  };
  launch(divergent_barrier, Launch{extent(0), extent(3), std::size_t(arguments.number(9)), 0, extent(6)});
}
CNN_TEST(update_test) {
  launch(arguments.number(0) ? update<true> : update<false>, one_block(64), arguments.pointer<int>(1));
}
CNN_TEST(same_address_test) { launch(same_address, Launch{dim3(2), dim3(32)}, arguments.pointer<int>(0)); }
CNN_TEST(unordered_test) {
  launch(arguments.number(0) ? unordered<true> : unordered<false>, one_block(64), arguments.pointer<int>(1));
}

}  // namespace
}  // namespace cnnkernels
#endif
