// Clusters: blocks that run at the same time on neighbouring SMs and reach each other's shared memory,
// launched by Launch::cluster. Needs sm_90.
//
// No block may be reached before it runs, nor after it has ended. So a kernel calls cluster_sync() after its
// mbarrier_init and mbarrier_init_fence, in place of __syncthreads, and once more at its end.
// mbarrier_arrive_cluster and tma_load's multicast (mbarrier.cuh, tma_multicast.cuh) do the reaching.
#pragma once

#include "site.h"

namespace cnnkernels {

// The calling block's number in its cluster, 0 to cluster_size() - 1: x fastest, then y, then z.
CNN_DEVICE unsigned cluster_rank() {
#if defined(CNN_INTERPRETER)
  return interpreter::cluster_rank();
#else
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#endif
}

CNN_DEVICE unsigned cluster_size() {
#if defined(CNN_INTERPRETER)
  return interpreter::cluster_size();
#else
  unsigned size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
#endif
}

// The barrier of all threads of the cluster: what each did before it arrived is visible to all after they
// waited. Each thread calls the two in turn, those of a warp together (after __syncwarp() where they parted).
CNN_DEVICE void cluster_arrive(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  interpreter::cluster_arrive(site);
#else
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

CNN_DEVICE void cluster_wait(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  interpreter::cluster_wait(site);
#else
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

CNN_DEVICE void cluster_sync(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  interpreter::cluster_arrive(site);
  interpreter::cluster_wait(site);
#else
  cluster_arrive();
  cluster_wait();
#endif
}

}  // namespace cnnkernels
