// Conformance of clusters: ranks, the barrier of all their threads, arrivals on other blocks' mbarriers, and
// TMA's multicast; also a ring of stages that two blocks fill for each other, with faults planted one at a
// time, each of which the interpreter must catch.
#include <array>
#include <stdexcept>
#include <utility>

#include "common/launch.h"
#include "ptx/cluster.cuh"
#include "ptx/sync.cuh"
#include "ptx/tma_multicast.cuh"
#include "registry.h"

namespace cnnkernels {
namespace {

constexpr int kThreads = 64;

// ranks[block]: rank * 100 + size
CNN_KERNEL(kThreads, 1) ranks_kernel(int* ranks) {
#if CNN_SM90A
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  if (threadIdx.x == 0) ranks[block] = static_cast<int>(100 * cluster_rank() + cluster_size());
#else
  left_out();
#endif
}

// A token goes round the cluster: each block waits for an arrival of the one before, reads the sum it left in
// global memory, adds its own and arrives at the next.
CNN_KERNEL(kThreads, 1) token_kernel(int rounds, int* trace) {
#if CNN_SM90A
  CNN_SHARED(Mbarrier, token, [1]);
  const unsigned rank = cluster_rank(), size = cluster_size();
  if (threadIdx.x == 0) {
    mbarrier_init(token, 1);
    mbarrier_init_fence();
  }
  cluster_sync();
  if (threadIdx.x == 0) {
    for (int round = 0; round < rounds; ++round) {
      if (rank != 0 || round != 0) mbarrier_wait(token, (round - (rank == 0 ? 1 : 0)) & 1);
      __threadfence();
      const int step = round * static_cast<int>(size) + static_cast<int>(rank);
      atomicExch(&trace[step + 1], atomicAdd(&trace[step], 0) + static_cast<int>(rank) + 1);
      __threadfence();
      mbarrier_arrive_cluster(token, (rank + 1) % size);
    }
  }
  __syncwarp();
  cluster_sync();
#else
  left_out();
#endif
}

// Each block loads what its own place says to its own part of the image, for the blocks of its mask. `copies`
// [block]: how many copies reach it.
template <int Rank, bool Im2col>
CNN_KERNEL(kThreads, 1)
multicast_kernel(const __grid_constant__ TensorMap map, const int* places, const int* masks,
                 const int* copies, int part, int copied, int bytes, unsigned char* images) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  CNN_SHARED(Mbarrier, full, [1]);
  const int block = static_cast<int>(cluster_rank());
  for (int i = threadIdx.x; i < bytes; i += kThreads) shared[i] = 0xee;
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  fence_proxy_async();
  cluster_sync();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_bytes(full, static_cast<unsigned>(copies[block] * copied));
    const int* place = places + 8 * block;
    const ClusterMask mask{static_cast<std::uint16_t>(masks[block])};
    int at[Rank];
#pragma unroll
    for (int i = 0; i < Rank; ++i) at[i] = place[i];
    if (mask.blocks != 0) {
      if constexpr (Im2col) {
        int tap[Rank - 2];
#pragma unroll
        for (int i = 0; i < Rank - 2; ++i) tap[i] = place[5 + i];
        tma_load(shared + block * part, map, full, mask, at, tap);
      } else {
        tma_load(shared + block * part, map, full, mask, at);
      }
    }
  }
  mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < bytes; i += kThreads) images[block * bytes + i] = shared[i];
  __syncwarp();
  cluster_sync();
#else
  left_out();
#endif
}

enum class Fault : int {
  none,
  no_cluster_sync_at_start,
  no_cluster_sync_at_end,
  no_remote_arrival,
  arrival_at_own_block_twice,
  mask_of_own_block,
  mask_of_other_block,
  mask_beyond_the_cluster,
  half_the_bytes,
  twice_the_bytes,
  no_full_wait,
  cluster_wait_without_arrival,
  cluster_arrival_twice,
  cluster_arrival_never_waited_for,
  part_of_a_warp,
  count
};
#if defined(CNN_INTERPRETER)
constexpr int kVariants = static_cast<int>(Fault::count);
#else
constexpr int kVariants = 1;  // a GPU runs the correct kernel only
#endif

constexpr int kStages = 2, kRows = 16, kHalf = kRows * 16, kStage = 2 * kHalf;  // bytes

// Two blocks bring the two halves of every tile to both. The first warp loads, the second adds up:
// out[block][2 * 128] 16-bit numbers, the sum of all tiles times block + 1.
template <Fault F>
CNN_KERNEL(kThreads, 1)
ring_kernel(const __grid_constant__ TensorMap map, int tiles, int* out) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  CNN_SHARED(Mbarrier, full, [kStages]);
  CNN_SHARED(Mbarrier, empty, [kStages]);
  const int rank = static_cast<int>(cluster_rank()), other = 1 - rank;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], 2);
    }
    mbarrier_init_fence();
  }
  if constexpr (F == Fault::cluster_wait_without_arrival) cluster_wait();
  if constexpr (F == Fault::part_of_a_warp) {
    if (threadIdx.x % 2 == 0) cluster_arrive();
  }
  if constexpr (F == Fault::cluster_arrival_twice) cluster_arrive();
  if constexpr (F == Fault::no_cluster_sync_at_start) {
    __syncthreads();
  } else {
    cluster_sync();
  }
  if (threadIdx.x == 0) {
    constexpr int kMask = F == Fault::mask_beyond_the_cluster ? 0b111 : 0b11;
    const int blocks = F == Fault::mask_of_own_block     ? 1 << rank
                       : F == Fault::mask_of_other_block ? 1 << other
                                                         : kMask;
    constexpr int kBytes = F == Fault::half_the_bytes    ? kStage / 2
                           : F == Fault::twice_the_bytes ? 2 * kStage
                                                         : kStage;
    for (int i = 0; i < tiles; ++i) {
      const int s = i % kStages;
      mbarrier_wait(&empty[s], (i / kStages & 1) ^ 1);
      mbarrier_arrive_expect_bytes(&full[s], kBytes);
      tma_load(shared + s * kStage + rank * kHalf, map, &full[s],
               ClusterMask{static_cast<std::uint16_t>(blocks)}, {8 * rank, i * kRows});
    }
  } else if (threadIdx.x >= 32) {
    const int lane = threadIdx.x - 32;
    int sums[8] = {};
    for (int i = 0; i < tiles; ++i) {
      const int s = i % kStages;
      if constexpr (F != Fault::no_full_wait) mbarrier_wait(&full[s], i / kStages & 1);
      const auto* values = reinterpret_cast<const std::uint16_t*>(shared + s * kStage);
      for (int k = 0; k < 8; ++k) sums[k] += values[lane + 32 * k];
      __syncwarp();
      if constexpr (F == Fault::no_remote_arrival) {
        if (lane == 0) mbarrier_arrive(&empty[s]);
      } else if constexpr (F == Fault::arrival_at_own_block_twice) {
        if (lane < 2) mbarrier_arrive(&empty[s]);
      } else {
        if (lane < 2) mbarrier_arrive_cluster(&empty[s], static_cast<unsigned>(lane));
      }
    }
    for (int k = 0; k < 8; ++k) out[rank * 256 + lane + 32 * k] = sums[k] * (rank + 1);
  }
  __syncwarp();
  if constexpr (F == Fault::cluster_arrival_never_waited_for) {
    cluster_arrive();
  } else if constexpr (F != Fault::no_cluster_sync_at_end) {
    cluster_sync();
  }
#else
  left_out();
#endif
}

template <Fault F>
void start_ring(const tests::Arguments& arguments) {
  const std::int64_t tiles = arguments.number(1);
  const TileBox box{.element = MapElement::float16,
                    .rank = 2,
                    .address = arguments.pointer<const void>(2),
                    .size = {16, tiles * kRows},
                    .stride = {0, 32},
                    .box = {8, kRows}};
  launch(ring_kernel<F>, Launch{dim3(2), dim3(kThreads), kStages * kStage, arguments.stream, dim3(2)},
         make_tensor_map(box), static_cast<int>(tiles), arguments.pointer<int>(3));
}

template <int Rank, bool Im2col, class Box>
void start_multicast(const tests::Arguments& arguments, const Box& box) {
  const auto blocks = static_cast<unsigned>(arguments.number(0));
  const auto part = static_cast<int>(arguments.number(4)), bytes = static_cast<int>(blocks) * part;
  launch(
      multicast_kernel<Rank, Im2col>,
      Launch{dim3(blocks), dim3(kThreads), static_cast<std::size_t>(bytes), arguments.stream, dim3(blocks)},
      make_tensor_map(box), arguments.pointer<const int>(1), arguments.pointer<const int>(2),
      arguments.pointer<const int>(3), part, copied_bytes(box), bytes, arguments.pointer<unsigned char>(5));
}

}  // namespace

// grid (3 numbers), cluster (3 numbers), ranks
CNN_TEST(cluster_ranks) {
  const auto extent = [&](std::size_t first) {
    return dim3(unsigned(arguments.number(first)), unsigned(arguments.number(first + 1)),
                unsigned(arguments.number(first + 2)));
  };
  launch(ranks_kernel, Launch{extent(0), dim3(kThreads), 0, arguments.stream, extent(3)},
         arguments.pointer<int>(6));
}

// blocks of the one cluster, rounds, trace[rounds * blocks + 1], zeros
CNN_TEST(cluster_token) {
  const auto blocks = static_cast<unsigned>(arguments.number(0));
  launch(token_kernel, Launch{dim3(blocks), dim3(kThreads), 0, arguments.stream, dim3(blocks)},
         int(arguments.number(1)), arguments.pointer<int>(2));
}

// blocks, places [block][8], masks, copies, bytes of a block's part, images [block], then the tensor
// [rows][64] of 16 bits and rows: boxes of 32 by 8, swizzled in 64 bytes
CNN_TEST(cluster_multicast_tile) {
  start_multicast<2, false>(arguments, TileBox{.element = MapElement::float16,
                                               .rank = 2,
                                               .address = arguments.pointer<const void>(6),
                                               .size = {64, arguments.number(7)},
                                               .stride = {0, 128},
                                               .box = {32, 8},
                                               .swizzle = Swizzle::span64});
}

// the same of an image [n][h][w][32] of 16 bits: columns of 16 pixels for 3 x 3 taps, padding 1
CNN_TEST(cluster_multicast_column) {
  const std::int64_t w = arguments.number(7), h = arguments.number(8), n = arguments.number(9);
  start_multicast<4, true>(arguments, Im2colBox{.element = MapElement::float16,
                                                .rank = 4,
                                                .address = arguments.pointer<const void>(6),
                                                .size = {32, w, h, n},
                                                .stride = {0, 64, 64 * w, 64 * w * h},
                                                .lower = {-1, -1},
                                                .upper = {-1, -1},
                                                .channels = 32,
                                                .pixels = 16,
                                                .swizzle = Swizzle::span64});
}

// fault, tiles, in [tiles][16][16] of 16 bits, out[2][256]
CNN_TEST(cluster_ring) {
  constexpr auto starts = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array{&start_ring<static_cast<Fault>(I)>...};
  }(std::make_integer_sequence<int, kVariants>{});
  starts.at(arguments.number(0))(arguments);
}

}  // namespace cnnkernels
