// A small convolution as the Hopper kernels do it: TMA brings columns of pixels and filter taps into a ring
// of swizzled stages, a warpgroup multiplies them by wgmma, TMA stores the result. Also with faults planted
// one at a time, each of which the interpreter must catch.
#include <array>
#include <utility>

#include "common/geometry.h"
#include "common/launch.h"
#include "common/types.h"
#include "ptx/ldmatrix.cuh"
#include "ptx/sync.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "registry.h"

namespace cnnkernels {
namespace {

enum class Fault : int {
  none,
  no_barrier_after_init,
  no_init_fence,
  no_full_wait,
  no_empty_wait,
  too_few_bytes,
  too_many_bytes,
  wrong_full_phase,
  release_before_wait,
  no_wgmma_fence,
  read_before_wait,
  one_arrival_too_many,
  swizzle_mismatch,
  no_barrier_before_store,
  no_store_wait,
  no_proxy_fence,
  count
};

// A GPU runs the correct kernel only: what the others do there is undefined.
#if defined(CNN_INTERPRETER)
constexpr int kVariants = static_cast<int>(Fault::count);
#else
constexpr int kVariants = 1;
#endif

constexpr int kPixels = 64, kFilters = 64,
              kChannels = 64;  // the tile [pixels][filters] and a stage's part of the sum
constexpr int kStages = 3;
constexpr int kConsumers = 128, kThreads = kConsumers + 32;  // a warpgroup, and the producer's warp
constexpr int kTileBytes = kPixels * kChannels * 2;
constexpr int kStageBytes = 2 * kTileBytes;  // pixels, then filters
constexpr int kSharedBytes = kStages * kStageBytes + kTileBytes;

struct Ring {
  Mbarrier full[kStages], empty[kStages];
};

struct Steps {
  int count, chunks;  // of the sum: all, and a filter tap's, one for every kChannels channels
};

template <Fault F>
CNN_DEVICE void produce(unsigned char* stages, Ring& ring, const TensorMap& input, const TensorMap& weight,
                        const ConvGeometry& g, Steps steps) {
  const int first = blockIdx.x * kPixels, q = first % int(g.q), p = first / int(g.q) % int(g.p);
  const int n = first / int(g.q * g.p);
  const int w = q * int(g.stride_w) - int(g.pad_w), h = p * int(g.stride_h) - int(g.pad_h);
  for (int i = 0; i < steps.count; ++i) {
    const int s = i % kStages, tap = i / steps.chunks, c = i % steps.chunks * kChannels;
    unsigned char* stage = stages + s * kStageBytes;
    if constexpr (F != Fault::no_empty_wait) mbarrier_wait(&ring.empty[s], (i / kStages & 1) ^ 1);
    constexpr int kWrong = F == Fault::too_few_bytes ? -kTileBytes : F == Fault::too_many_bytes ? 16 : 0;
    mbarrier_arrive_expect_bytes(&ring.full[s], kStageBytes + kWrong);
    tma_load(stage, input, &ring.full[s], {c, w, h, n},
             {tap % int(g.s) * int(g.dilation_w), tap / int(g.s) * int(g.dilation_h)});
    tma_load(stage + kTileBytes, weight, &ring.full[s], {c, tap, int(blockIdx.y) * kFilters});
  }
}

template <Fault F>
CNN_DEVICE void consume(const unsigned char* stages, Ring& ring, float (&sum)[kFilters / 2], Steps steps) {
  constexpr Swizzle kSwizzle = F == Fault::swizzle_mismatch ? Swizzle::none : Swizzle::span128;
  for (int i = 0; i < steps.count; ++i) {
    const int s = i % kStages;
    const unsigned char* stage = stages + s * kStageBytes;
    if constexpr (F != Fault::no_full_wait) {
      mbarrier_wait(&ring.full[s], (i / kStages & 1) ^ (F == Fault::wrong_full_phase ? 1 : 0));
    }
    if constexpr (F != Fault::no_wgmma_fence) wgmma_fence(sum);
    const std::uint64_t a = wgmma_k_major(stage, kSwizzle),
                        b = wgmma_k_major(stage + kTileBytes, Swizzle::span128);
#pragma unroll
    for (int k = 0; k < kChannels; k += 16) {
      wgmma<bfloat16, kFilters>(sum, wgmma_advance(a, 2 * k), wgmma_advance(b, 2 * k), i > 0 || k > 0);
    }
    wgmma_commit();
    const auto release = [&](int stage_done) {
      if (F == Fault::one_arrival_too_many || threadIdx.x == 0) mbarrier_arrive(&ring.empty[stage_done]);
    };
    if constexpr (F == Fault::release_before_wait) {
      release(s);
      wgmma_wait<1>(sum);
    } else {
      wgmma_wait<1>(sum);  // the step before this one is done
      if (i > 0) release((i - 1) % kStages);
    }
  }
  if constexpr (F != Fault::read_before_wait) wgmma_wait<0>(sum);
}

// Rounds the accumulators to bfloat16 and hands them to TMA by way of a swizzled tile.
template <Fault F>
CNN_DEVICE void store(unsigned char* tile, const TensorMap& output, const float (&sum)[kFilters / 2]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16;
#pragma unroll
  for (int j = 0; j < kFilters / 16; ++j) {  // 16 columns: four 8 x 8 matrices
    std::uint32_t pairs[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      pairs[r] = float_to_bfloat16(sum[8 * j + 2 * r]).bits | float_to_bfloat16(sum[8 * j + 2 * r + 1]).bits
                                                                  << 16;
    }
    stmatrix_x4(tile + swizzled(row * 128 + (2 * j + lane / 16) * 16, Swizzle::span128), pairs);
  }
  if constexpr (F != Fault::no_proxy_fence) fence_proxy_async();
  if constexpr (F != Fault::no_barrier_before_store) named_barrier_sync(1, kConsumers);
  if (threadIdx.x == 0) {
    tma_store(output, tile, {int(blockIdx.y) * kFilters, int(blockIdx.x) * kPixels});
    bulk_commit();
    if constexpr (F != Fault::no_store_wait) bulk_wait_read<0>();
  }
}

template <Fault F>
CNN_KERNEL(kThreads, 1)
ring_convolution_kernel(const __grid_constant__ TensorMap input, const __grid_constant__ TensorMap weight,
                        const __grid_constant__ TensorMap output, ConvGeometry g, Steps steps) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  CNN_SHARED(Ring, rings, [1]);
  Ring& ring = rings[0];
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&ring.full[s], 1);
      mbarrier_init(&ring.empty[s], 1);
    }
    if constexpr (F != Fault::no_init_fence) mbarrier_init_fence();
  }
  if constexpr (F != Fault::no_barrier_after_init) __syncthreads();

  if (threadIdx.x >= kConsumers) {
    if (elect_one()) produce<F>(shared, ring, input, weight, g, steps);
  } else {
    float sum[kFilters / 2];
    consume<F>(shared, ring, sum, steps);
    store<F>(shared + kStages * kStageBytes, output, sum);
  }
#else
  left_out();
#endif
}

// x [N][H][W][C], w [K][R * S][C], y [N * P * Q][K]
template <Fault F>
void start(const ConvGeometry& g, const void* x, const void* w, void* y, std::uintptr_t stream) {
  const Im2colBox pixels{.element = MapElement::bfloat16,
                         .rank = 4,
                         .address = x,
                         .size = {g.c, g.w, g.h, g.n},
                         .stride = {0, 2 * g.c, 2 * g.c * g.w, 2 * g.c * g.w * g.h},
                         .lower = {-int(g.pad_w), -int(g.pad_h)},
                         .upper = {int((g.q - 1) * g.stride_w + 1 - g.w - g.pad_w),
                                   int((g.p - 1) * g.stride_h + 1 - g.h - g.pad_h)},
                         .channels = kChannels,
                         .pixels = kPixels,
                         .step = {1, int(g.stride_w), int(g.stride_h), 1},
                         .swizzle = Swizzle::span128};
  const TileBox filters{.element = MapElement::bfloat16,
                        .rank = 3,
                        .address = w,
                        .size = {g.c, g.r * g.s, g.k},
                        .stride = {0, 2 * g.c, 2 * g.c * g.r * g.s},
                        .box = {kChannels, 1, kFilters},
                        .swizzle = Swizzle::span128};
  const TileBox result{.element = MapElement::bfloat16,
                       .rank = 2,
                       .address = y,
                       .size = {g.k, g.n * g.p * g.q},
                       .stride = {0, 2 * g.k},
                       .box = {kFilters, kPixels},
                       .swizzle = Swizzle::span128};
  const int chunks = int((g.c + kChannels - 1) / kChannels);
  const Steps steps{int(g.r * g.s) * chunks, chunks};
  const dim3 grid(unsigned((g.n * g.p * g.q + kPixels - 1) / kPixels),
                  unsigned((g.k + kFilters - 1) / kFilters));
  launch(ring_convolution_kernel<F>, Launch{grid, dim3(kThreads), kSharedBytes, stream},
         make_tensor_map(pixels), make_tensor_map(filters), make_tensor_map(result), g, steps);
}

}  // namespace

// fault, geometry (16 numbers, of a plane), x, w, y
CNN_TEST(ring_convolution) {
  const auto* f = arguments.pointer<const std::int64_t>(1);
  const ConvGeometry g{f[0], f[1], 1,    f[2],  f[3], f[4],  1,     f[5], f[6],  1,     f[7],
                       f[8], 1,    f[9], f[10], 0,    f[11], f[12], 1,    f[13], f[14], f[15]};
  constexpr auto starts = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array{&start<static_cast<Fault>(I)>...};
  }(std::make_integer_sequence<int, kVariants>{});
  starts.at(arguments.number(0))(g, arguments.pointer<const void>(2), arguments.pointer<const void>(3),
                                 arguments.pointer<void>(4), arguments.stream);
}

}  // namespace cnnkernels
