// Kernels without a fault: the interpreter must run them alike in every order, and a GPU must agree.
#include "common/launch.h"
#include "registry.h"

namespace cnnkernels {
namespace {

// out[b] = sum of 256 values, by a tree in shared memory; all but the first warp leave early.
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

// Every thread leaves before its neighbours' barriers: each round has one thread less. out[t] = rounds it
// took part in.
CNN_KERNEL(1024, 1) leave_one_by_one(int* out) {
  const int t = threadIdx.x;
  int rounds = 0;
  for (; rounds < t; ++rounds) __syncthreads();
  out[t] = rounds;
}

// The transpose of a tile in dynamic shared memory, blocks and threads in three dimensions.
CNN_KERNEL(256, 1) transpose(const int* in, int* out, int size) {
  CNN_DYNAMIC_SHARED(memory);
  int* tile = reinterpret_cast<int*>(memory);
  const int columns = blockDim.x, z = blockIdx.z * blockDim.z + threadIdx.z;
  const int x = blockIdx.x * columns + threadIdx.x, y = blockIdx.y * columns + threadIdx.y;
  int* mine = tile + threadIdx.z * columns * columns;
  mine[threadIdx.y * columns + threadIdx.x] = in[(z * size + y) * size + x];
  __syncthreads();
  const int to_x = blockIdx.y * columns + threadIdx.x, to_y = blockIdx.x * columns + threadIdx.y;
  out[(z * size + to_y) * size + to_x] = mine[threadIdx.x * columns + threadIdx.y];
}

// out[kind][lane] for every kind of exchange.
template <class T>
CNN_KERNEL(32, 1)
shuffles(const T* in, T* out, int amount, int width) {
  const T x = in[threadIdx.x];
  T* row = out + threadIdx.x;
  row[0] = __shfl_sync(0xffffffffu, x, amount, width);
  row[32] = __shfl_up_sync(0xffffffffu, x, static_cast<unsigned>(amount), width);
  row[64] = __shfl_down_sync(0xffffffffu, x, static_cast<unsigned>(amount), width);
  row[96] = __shfl_xor_sync(0xffffffffu, x, amount, width);
}

// Halves of a warp work apart and meet again.
CNN_KERNEL(64, 1) votes(const int* in, unsigned* out) {
  const int lane = threadIdx.x % 32;
  const int x = in[threadIdx.x];
  unsigned* mine = out + threadIdx.x * 7;
  mine[0] = __ballot_sync(0xffffffffu, x > 0);
  if (lane < 16) {
    mine[1] = __ballot_sync(0x0000ffffu, x > 0);
  } else {
    mine[1] = __ballot_sync(0xffff0000u, x > 0);
  }
  mine[2] = static_cast<unsigned>(__any_sync(0xffffffffu, x > 0));
  mine[3] = static_cast<unsigned>(__all_sync(0xffffffffu, x > 0));
  mine[4] = static_cast<unsigned>(__syncthreads_count(x > 0));
  mine[5] = static_cast<unsigned>(__syncthreads_or(x > 0));
  mine[6] = static_cast<unsigned>(__syncthreads_and(x > 0));
}

// Neighbouring lanes exchange values through shared memory.
CNN_KERNEL(128, 1) neighbours(const float* in, float* out) {
  CNN_SHARED(float, tile, [4][32]);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  tile[warp][lane] = in[threadIdx.x];
  __syncwarp();
  out[threadIdx.x] = tile[warp][(lane + 1) % 32];
}

// All blocks count in the same few words.
CNN_KERNEL(256, 1) counters(int* sum, unsigned* most, unsigned* least, unsigned long long* wide, int* spun) {
  const auto i = static_cast<unsigned>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(sum, 1);
  atomicMax(most, i);
  atomicMin(least, i + 7);
  atomicAdd(wide, (1ull << 32) + i);
  for (int seen = atomicAdd(spun, 0);;) {  // an increment by compare-and-swap
    const int before = atomicCAS(spun, seen, seen + 1);
    if (before == seen) break;
    seen = before;
  }
}

// out[i] = the i-th thread to get its first turn, in the order of blocks and threads.
CNN_KERNEL(64, 1) first_turns(int* counter, int* out) {
  out[atomicAdd(counter, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  __syncthreads();
}

// Two static arrays in one helper, two instances of it: four places in shared memory.
template <int Tag>
CNN_DEVICE float* scratch() {
  CNN_SHARED(float, array, [8]);
  return array;
}
CNN_KERNEL(8, 1) instances(float* out) {
  const int t = threadIdx.x;
  scratch<1>()[t] = 1.f + t;
  scratch<2>()[t] = 100.f + t;
  __syncthreads();
  out[t] = scratch<1>()[7 - t] + scratch<2>()[7 - t];
}

template <class T>
void launch_shuffles(const tests::Arguments& a) {
  launch(shuffles<T>, Launch{dim3(1), dim3(32), 0, a.stream}, a.pointer<const T>(1), a.pointer<T>(2),
         int(a.number(3)), int(a.number(4)));
}

CNN_TEST(block_sum_test) {
  launch(block_sum, Launch{dim3(unsigned(arguments.number(2))), dim3(256), 0, arguments.stream},
         arguments.pointer<const float>(0), arguments.pointer<float>(1));
}
CNN_TEST(leave_one_by_one_test) {
  launch(leave_one_by_one, Launch{dim3(1), dim3(unsigned(arguments.number(1))), 0, arguments.stream},
         arguments.pointer<int>(0));
}
CNN_TEST(transpose_test) {  // [4, size, size] in tiles of 2 x 8 x 8
  const auto size = unsigned(arguments.number(2));
  launch(transpose,
         Launch{dim3(size / 8, size / 8, 2), dim3(8, 8, 2), 2 * 64 * sizeof(int), arguments.stream},
         arguments.pointer<const int>(0), arguments.pointer<int>(1), int(size));
}
CNN_TEST(shuffles_test) {
  switch (arguments.number(0)) {
    case 0:
      return launch_shuffles<int>(arguments);
    case 1:
      return launch_shuffles<float>(arguments);
    case 2:
      return launch_shuffles<double>(arguments);
    default:
      return launch_shuffles<long long>(arguments);
  }
}
CNN_TEST(votes_test) {
  launch(votes, Launch{dim3(1), dim3(64), 0, arguments.stream}, arguments.pointer<const int>(0),
         arguments.pointer<unsigned>(1));
}
CNN_TEST(neighbours_test) {
  launch(neighbours, Launch{dim3(1), dim3(128), 0, arguments.stream}, arguments.pointer<const float>(0),
         arguments.pointer<float>(1));
}
CNN_TEST(counters_test) {
  launch(counters, Launch{dim3(unsigned(arguments.number(5))), dim3(256), 0, arguments.stream},
         arguments.pointer<int>(0), arguments.pointer<unsigned>(1), arguments.pointer<unsigned>(2),
         arguments.pointer<unsigned long long>(3), arguments.pointer<int>(4));
}
CNN_TEST(first_turns_test) {
  launch(first_turns, Launch{dim3(3), dim3(64), 0, arguments.stream}, arguments.pointer<int>(0),
         arguments.pointer<int>(1));
}
CNN_TEST(instances_test) {
  launch(instances, Launch{dim3(1), dim3(8), 0, arguments.stream}, arguments.pointer<float>(0));
}

}  // namespace
}  // namespace cnnkernels
