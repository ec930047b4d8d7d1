// Kernels that are wrong on purpose: a cp.async pipeline with one thing missing, and single calls that break
// a rule. The interpreter must catch every one; on a GPU what they do is undefined, so nvcc never sees them.
#if defined(CNN_INTERPRETER)
#include <array>
#include <utility>

#include "common/launch.h"
#include "ptx/cp_async.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "ptx/sync.cuh"
#include "ptx/tma.cuh"
#include "ptx/wgmma.cuh"
#include "registry.h"

namespace cnnkernels {
namespace {

enum class Fault : int { none, no_wait, weak_wait, no_barrier, no_swizzle, misaligned_row, count };

constexpr int kStages = 3, kRows = 16, kRowBytes = 128, kTile = kRows * kRowBytes, kThreads = 128;

// Four warps read tiles of 16 rows of 128 bytes, each 32 bytes of every row, through a ring of stages:
// out [tile][warp][lane][4] are the fragments.
template <Fault F>
CNN_KERNEL(kThreads, 1)
pipeline_kernel(int tiles, const unsigned char* in, std::uint32_t* out) {
  CNN_DYNAMIC_SHARED(shared);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const auto place = [](int row, int chunk) {
    return row * kRowBytes + 16 * (F == Fault::no_swizzle ? chunk : chunk ^ row % 8);
  };
  const auto load = [&](int tile) {
    if (tile < tiles) {
      const int row = thread / 8, chunk = thread % 8;
      cp_async<16>(shared + tile % kStages * kTile + place(row, chunk),
                   in + tile * kTile + row * kRowBytes + chunk * 16, true);
    }
    cp_async_commit();
  };
  for (int i = 0; i < kStages - 1; ++i) load(i);
  for (int tile = 0; tile < tiles; ++tile) {
    if constexpr (F == Fault::weak_wait)
      cp_async_wait<kStages - 1>();
    else if constexpr (F != Fault::no_wait)
      cp_async_wait<kStages - 2>();
    if constexpr (F != Fault::no_barrier) __syncthreads();
    std::uint32_t fragment[4];
    const unsigned char* row = shared + tile % kStages * kTile + place(lane % 16, 2 * warp + lane / 16);
    ldmatrix_x4(fragment, row + (F == Fault::misaligned_row && lane == 5 ? 8 : 0));
    for (int r = 0; r < 4; ++r) out[((tile * 4 + warp) * 32 + lane) * 4 + r] = fragment[r];
    load(tile + kStages -
         1);  // into the stage that was read in the step before, which the barrier above ended
  }
}

template <Fault F>
void start_pipeline(const tests::Arguments& arguments) {
  launch(pipeline_kernel<F>, Launch{dim3(1), dim3(kThreads), kStages * kTile, arguments.stream},
         int(arguments.number(1)), arguments.pointer<const unsigned char>(2),
         arguments.pointer<std::uint32_t>(3));
}

// Breaks one rule.
enum class Rule : int {
  mbarrier_misaligned,
  mbarrier_in_global_memory,
  mbarrier_initialised_twice,
  mbarrier_without_arrivals,
  mbarrier_overwritten,
  mbarrier_parity,
  mbarrier_arrival_unseen,
  mbarrier_too_many_bytes,
  cp_async_misaligned_source,
  cp_async_misaligned_destination,
  cp_async_to_global_memory,
  tma_misaligned_tile,
  tma_tile_too_large,
  tma_wrong_rank,
  wgmma_misaligned_descriptor,
  wgmma_different_descriptors,
  wgmma_outside_of_shared_memory,
  wgmma_changed_shape_in_flight,
  registers_given_not_held,
  registers_taken_never_given,
  registers_by_one_warp,
  elect_by_half_a_warp,
  mma_by_half_a_warp,
  named_barrier_counts_differ,
  count
};

template <Rule R>
CNN_KERNEL(384, 1)
rule_kernel(const __grid_constant__ TensorMap map, std::uint32_t* global) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  CNN_SHARED(Mbarrier, barrier, [2]);
  const bool first = threadIdx.x == 0;
  if (first) {
    mbarrier_init(&barrier[0], R == Rule::mbarrier_without_arrivals ? 0 : 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if constexpr (R == Rule::mbarrier_misaligned) {
    if (first) mbarrier_init(reinterpret_cast<Mbarrier*>(shared + 4), 1);
  } else if constexpr (R == Rule::mbarrier_in_global_memory) {
    if (first) mbarrier_init(reinterpret_cast<Mbarrier*>(global), 1);
  } else if constexpr (R == Rule::mbarrier_initialised_twice) {
    if (first) mbarrier_init(&barrier[0], 1);
  } else if constexpr (R == Rule::mbarrier_overwritten) {
    if (first) {
      barrier[0].state = 1;
      mbarrier_arrive(&barrier[0]);
    }
  } else if constexpr (R == Rule::mbarrier_parity) {
    mbarrier_wait(&barrier[0], 2);
  } else if constexpr (R == Rule::mbarrier_arrival_unseen) {
    if (first) {
      mbarrier_arrive(&barrier[0]);
      mbarrier_arrive(&barrier[0]);
    }
  } else if constexpr (R == Rule::mbarrier_too_many_bytes) {
    if (first) mbarrier_expect_bytes(&barrier[0], 1 << 20);
  } else if constexpr (R == Rule::cp_async_misaligned_source) {
    cp_async<8>(shared, global + 1, true);
  } else if constexpr (R == Rule::cp_async_misaligned_destination) {
    cp_async<16>(shared + 8, global, true);
  } else if constexpr (R == Rule::cp_async_to_global_memory) {
    cp_async<16>(global, global, true);
  } else if constexpr (R == Rule::tma_misaligned_tile) {
    if (first) tma_load(shared + 64, map, &barrier[0], {0, 0});
  } else if constexpr (R == Rule::tma_tile_too_large) {
    if (first) tma_load(shared + 3072, map, &barrier[0], {0, 0});
  } else if constexpr (R == Rule::tma_wrong_rank) {
    if (first) tma_load(shared, map, &barrier[0], {0, 0, 0});
  } else if constexpr (R == Rule::registers_given_not_held) {
    if (threadIdx.x < 128)
      decrease_registers<256>();
    else
      increase_registers<24>();
  } else if constexpr (R == Rule::registers_taken_never_given) {
    if (threadIdx.x < 128)
      decrease_registers<160>();  // 3 * 128 threads begin with 168 each
    else
      increase_registers<232>();
  } else if constexpr (R == Rule::registers_by_one_warp) {
    if (threadIdx.x < 32) decrease_registers<40>();
  } else if constexpr (R == Rule::elect_by_half_a_warp) {
    if (threadIdx.x < 16) global[0] = elect_one();
  } else if constexpr (R == Rule::mma_by_half_a_warp) {
    if (threadIdx.x < 16) {
      float d[1][1][4] = {};
      const std::uint32_t a[1][4] = {}, b[1][2] = {};
      mma_tile<float16>(d, a, b);
    }
  } else if constexpr (R == Rule::named_barrier_counts_differ) {
    named_barrier_sync(1, threadIdx.x < 128 ? 256 : 128);
  } else if (threadIdx.x < 128) {  // wgmma's
    float d[32] = {};
    const std::uint64_t tile = wgmma_k_major(shared, Swizzle::span128);
    const auto multiply = [&](std::uint64_t a) { wgmma<float16, 64>(d, a, tile, true); };
    wgmma_fence(d);
    if constexpr (R == Rule::wgmma_misaligned_descriptor) multiply(wgmma_k_major(shared + 8, Swizzle::none));
    if constexpr (R == Rule::wgmma_different_descriptors)
      multiply(wgmma_advance(tile, threadIdx.x < 64 ? 0 : 32));
    if constexpr (R == Rule::wgmma_outside_of_shared_memory) multiply(wgmma_advance(tile, 1 << 17));
    if constexpr (R == Rule::wgmma_changed_shape_in_flight) {
      multiply(tile);
      wgmma<float16, 8>(reinterpret_cast<float (&)[4]>(d), tile, tile, true);
    }
    wgmma_commit();
    wgmma_wait<0>(d);
  }
#else
  left_out();
#endif
}

template <Rule R>
void start_rule(const tests::Arguments& arguments) {
  const TileBox box{.element = MapElement::float16,
                    .rank = 2,
                    .address = arguments.pointer<const void>(1),
                    .size = {64, 64},
                    .stride = {0, 128},
                    .box = {64, 16}};
  constexpr int kBytes = 16384;
  constexpr unsigned kThreads = R == Rule::registers_taken_never_given ? 384 : 256;
  launch(rule_kernel<R>,
         Launch{dim3(1), dim3(kThreads), R == Rule::tma_tile_too_large ? 4096 : kBytes, arguments.stream},
         make_tensor_map(box), arguments.pointer<std::uint32_t>(1));
}

}  // namespace

// fault, tiles, in, out
CNN_TEST(faulty_pipeline) {
  constexpr auto starts = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array{&start_pipeline<static_cast<Fault>(I)>...};
  }(std::make_integer_sequence<int, static_cast<int>(Fault::count)>{});
  starts.at(arguments.number(0))(arguments);
}

// rule, memory (8 KB)
CNN_TEST(broken_rule) {
  constexpr auto starts = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array{&start_rule<static_cast<Rule>(I)>...};
  }(std::make_integer_sequence<int, static_cast<int>(Rule::count)>{});
  starts.at(arguments.number(0))(arguments);
}

}  // namespace cnnkernels
#endif
