// The kernel for Hopper: TMA fills a ring of stages, wgmma multiplies them. Loads and Store are what an
// operator has of its own.
#pragma once

#include "../../common/launch.h"
#include "loads.cuh"
#include "multiply.cuh"

namespace cnnkernels::gemm::sm90 {

template <class C, class Loads>
CNN_DEVICE void produce(const typename C::Arguments& a, unsigned char* stages, Ring<C::kStages>& ring) {
  Turn<C::kStages> turn;
  for (int tile = this_cluster<C>(); tile < a.tiles; tile += all_clusters<C>()) {
    const WorkTile work = work_tile<C>(a, tile);
    Loads loads(a, work);
    for (int step = 0; step < work.steps; ++step, turn.next()) {
      mbarrier_wait(&ring.empty[turn.stage], turn.parity ^ 1);
      loads.load(stages + turn.stage * C::kStageBytes, &ring.full[turn.stage]);
    }
  }
}

// Consumers that take every second tile multiply in turn: the ring has the stages of one tile behind those of
// the other's. A consumer has the next turn when the other's sums are done; it is told by a barrier of both.
template <class C>
class Alternation {
 public:
  CNN_DEVICE explicit Alternation(int consumer) : consumer_(consumer) {
    if (C::kPingPong && consumer == 1) named_barrier_arrive(kFirstBarrier, kConsumers * kWarpgroup);
  }
  CNN_DEVICE bool mine(int tile) const { return !C::kPingPong || tile / gridDim.x % 2 == consumer_; }
  CNN_DEVICE void begin() const {
    if (C::kPingPong) named_barrier_sync(kFirstBarrier + consumer_, kConsumers * kWarpgroup);
  }
  CNN_DEVICE void end(bool last) const {
    if (C::kPingPong && !last) named_barrier_arrive(kFirstBarrier + 1 - consumer_, kConsumers * kWarpgroup);
  }

 private:
  static constexpr int kFirstBarrier = 1 + kConsumers;  // behind those of the stores
  const unsigned consumer_;
};

template <class C, class Store>
CNN_DEVICE void consume(const typename C::Arguments& a, unsigned char* stages, Ring<C::kStages>& ring,
                        int consumer) {
  Turn<C::kStages> turn;
  const Alternation<C> alternation(consumer);
  Store store(a, stages + C::kStages * C::kStageBytes, consumer);
  const auto release = [&](int stage) {
    const unsigned lane = threadIdx.x % 32;
    if constexpr (C::kCluster == 1) {
      if (lane == 0) mbarrier_arrive(&ring.empty[stage]);
    } else {  // every block of the cluster copies a part of the stage
      if (lane < C::kCluster) mbarrier_arrive_cluster(&ring.empty[stage], lane);
    }
  };
  for (int tile = this_cluster<C>(); tile < a.tiles; tile += all_clusters<C>()) {
    const WorkTile work = work_tile<C>(a, tile);
    if (!alternation.mine(tile)) {
      turn.skip(work.steps);
      continue;
    }
    typename C::Sums sums;  // zeros, and so the result of a phase without taps
#pragma unroll
    for (int m = 0; m < C::kM; ++m) {
#pragma unroll
      for (int v = 0; v < C::kN / 2; ++v) sums[m][v] = 0;
    }
    int before = 0;  // the stage of the step before
    alternation.begin();
    const auto multiply_all = [&]<class In>(In) {
#pragma unroll 1
      for (int step = 0; step < work.steps; ++step, turn.next()) {
        mbarrier_wait(&ring.full[turn.stage], turn.parity);
        wgmma_fence(sums);
        multiply<C, In>(sums, stages + turn.stage * C::kStageBytes, consumer);
        wgmma_commit();
        wgmma_wait<1>(sums);  // the step before is done, this one may still be running
        if (step > 0) release(before);
        before = turn.stage;
      }
      wgmma_wait<0>(sums);
    };
    // The sign of INT8 rows is a branch of the whole tile, which no wgmma in flight crosses.
    if constexpr (std::is_same_v<typename C::In, std::int8_t>) {
      if (a.unsigned_a)
        multiply_all(std::uint8_t{});
      else
        multiply_all(std::int8_t{});
    } else {
      multiply_all(typename C::In{});
    }
    if (work.steps > 0) release(before);
    alternation.end(tile + all_clusters<C>() >= a.tiles);
    store.tile(work, sums);
  }
  store.finish();
}

// A block's work; memory has kSharedBytes.
template <class C, class Loads, class Store>
CNN_DEVICE void run(const typename C::Arguments& a, unsigned char* memory, Ring<C::kStages>& ring) {
  if (threadIdx.x == 0) {
    for (int s = 0; s < C::kStages; ++s) {
      mbarrier_init(&ring.full[s], 1);
      mbarrier_init(&ring.empty[s], C::kCluster * C::kSharers * kWarpgroup / 32);  // each consuming warp
    }
    mbarrier_init_fence();
  }
  if constexpr (C::kCluster > 1) {
    cluster_sync();
  } else {
    __syncthreads();
  }

  // The same in all lanes, and known to be: roles and descriptors then need no vector registers.
  const int warp = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
  const int warpgroup = warp / 4;
  if (warpgroup == kConsumers) {
    decrease_registers<kProducerRegisters>();
    if (warp == kConsumers * 4 && elect_one()) produce<C, Loads>(a, memory, ring);
  } else {
    increase_registers<kConsumerRegisters>();
    consume<C, Store>(a, memory, ring, warpgroup);
  }
  if constexpr (C::kCluster > 1) {  // the others may still give stages back to this block
    __syncwarp();
    cluster_sync();
  }
}

// Starts a kernel of this shape. blocks: 0 for as many as there are processors.
template <class C>
void launch_blocks(void (*kernel)(typename C::Arguments), const typename C::Arguments& a, int blocks,
                   std::uintptr_t stream) {
  const int most = larger((blocks > 0 ? blocks : processors()) / C::kCluster, 1);
  const auto grid = static_cast<unsigned>(smaller(most, a.tiles) * C::kCluster);
  launch(kernel, Launch{dim3(grid), dim3(kThreads), C::kSharedBytes, stream, dim3(C::kCluster)}, a);
}

}  // namespace cnnkernels::gemm::sm90
