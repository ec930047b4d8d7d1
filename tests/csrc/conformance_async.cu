// Conformance of the primitives that complete later or make threads wait: cp.async,
// mbarrier, named barriers, setmaxnreg.
#include <stdexcept>

#include "common/launch.h"
#include "ptx/cp_async.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/sync.cuh"
#include "registry.h"

namespace cnnkernels {
namespace {

constexpr int kImage = 16384, kMostThreads = 256;

template <int Bytes, bool ByMbarrier>
CNN_KERNEL(kMostThreads, 1)
cp_async_kernel(int rounds, const unsigned char* source, const int* from, const int* to, const int* valid,
                unsigned char* image) {
  CNN_DYNAMIC_SHARED(shared);
  CNN_SHARED(Mbarrier, arrived, [1]);
  const int thread = threadIdx.x, threads = blockDim.x;
  for (int i = thread; i < kImage; i += threads) shared[i] = 0xee;
  if constexpr (ByMbarrier) {
    if (thread == 0) mbarrier_init(arrived, threads);
  }
  __syncthreads();
  for (int i = thread; i < rounds * threads; i += threads) {
    cp_async<Bytes>(shared + to[i], source + from[i], valid[i] != 0);
    if constexpr (!ByMbarrier) cp_async_commit();
  }
  if constexpr (ByMbarrier) {
    cp_async_arrive(arrived);
    mbarrier_wait(arrived, 0);
  } else {
    cp_async_wait<2>();
    cp_async_wait<0>();
    __syncthreads();
  }
  for (int i = thread; i < kImage; i += threads) image[i] = shared[i];
}

template <int Bytes>
auto choose_cp_async(bool by_mbarrier) {
  return by_mbarrier ? cp_async_kernel<Bytes, true> : cp_async_kernel<Bytes, false>;
}

constexpr int kMostStages = 8;

CNN_KERNEL(64, 1) ring_kernel(int stages, int items, const int* in, int* out) {
  CNN_SHARED(int, slot, [kMostStages][32]);
  CNN_SHARED(Mbarrier, full, [kMostStages]);
  CNN_SHARED(Mbarrier, empty, [kMostStages]);
  const int lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) {
      mbarrier_init(&full[s], 32);
      mbarrier_init(&empty[s], 32);
    }
  }
  __syncthreads();
  for (int i = 0; i < items; ++i) {
    const int s = i % stages, parity = i / stages % 2;
    if (threadIdx.x < 32) {
      mbarrier_wait(&empty[s], parity ^ 1);
      slot[s][lane] = 2 * in[i * 32 + lane];
      mbarrier_arrive(&full[s]);
    } else {
      mbarrier_wait(&full[s], parity);
      out[i * 32 + lane] = slot[s][31 - lane];
      mbarrier_arrive(&empty[s]);
    }
  }
}

CNN_KERNEL(128, 1) elect_kernel(int* elected) {
#if CNN_SM90A
  elected[threadIdx.x] = elect_one() ? 1 : 0;
#else
  left_out();
#endif
}

CNN_KERNEL(128, 1) named_barriers_kernel(const int* in, int* out) {
  CNN_SHARED(int, exchange, [2][64]);
  const int pair = threadIdx.x / 64, i = threadIdx.x % 64;
  exchange[pair][i] = in[threadIdx.x];
  if (i < 32) {
    named_barrier_sync(1 + pair, 64);
    out[threadIdx.x] = exchange[pair][63 - i];
    named_barrier_arrive(3 + pair, 64);
  } else {
    named_barrier_sync(1 + pair, 64);
    named_barrier_sync(3 + pair, 64);
    out[threadIdx.x] = exchange[pair][63 - i];
  }
}

CNN_KERNEL(384, 1) registers_kernel(const int* in, int* out) {
#if CNN_SM90A
  if (threadIdx.x < 128) {
    decrease_registers<40>();
    out[threadIdx.x] = 3 * in[threadIdx.x];
  } else {
    increase_registers<232>();
    out[threadIdx.x] = 3 * in[threadIdx.x];
  }
#else
  left_out();
#endif
}

}  // namespace

// bytes, by mbarrier?, threads, rounds, source, from, to, valid, image: copies from source +
// from[round][thread] to byte to[round][thread] of the image, zeros where
// !valid[round][thread]; a group a round, or an mbarrier for all
CNN_TEST(cp_async_copies) {
  const bool by_mbarrier = arguments.number(1) != 0;
  const auto kernel = arguments.number(0) == 16  ? choose_cp_async<16>(by_mbarrier)
                      : arguments.number(0) == 8 ? choose_cp_async<8>(by_mbarrier)
                                                 : choose_cp_async<4>(by_mbarrier);
  launch(kernel, Launch{dim3(1), dim3(unsigned(arguments.number(2))), kImage, arguments.stream},
         int(arguments.number(3)), arguments.pointer<const unsigned char>(4), arguments.pointer<const int>(5),
         arguments.pointer<const int>(6), arguments.pointer<const int>(7),
         arguments.pointer<unsigned char>(8));
}

// stages, items, in, out: a producer's and a consumer's warp; out[i][lane] = 2 * in[i][31 - lane]
CNN_TEST(mbarrier_ring) {
  if (arguments.number(0) > kMostStages) throw std::invalid_argument("at most 8 stages");
  launch(ring_kernel, Launch{dim3(1), dim3(64), 0, arguments.stream}, int(arguments.number(0)),
         int(arguments.number(1)), arguments.pointer<const int>(2), arguments.pointer<int>(3));
}

// elected[128 threads]: 1 where a lane of the four warps was elected
CNN_TEST(elect) {
  launch(elect_kernel, Launch{dim3(1), dim3(128), 0, arguments.stream}, arguments.pointer<int>(0));
}

// in, out: two pairs of warps turn their 64 values round
CNN_TEST(named_barriers) {
  launch(named_barriers_kernel, Launch{dim3(1), dim3(128), 0, arguments.stream},
         arguments.pointer<const int>(0), arguments.pointer<int>(1));
}

// in, out: one warpgroup gives registers, two take them; out[384] = 3 * in[384]
CNN_TEST(hand_over_registers) {
  launch(registers_kernel, Launch{dim3(1), dim3(384), 0, arguments.stream}, arguments.pointer<const int>(0),
         arguments.pointer<int>(1));
}

}  // namespace cnnkernels
