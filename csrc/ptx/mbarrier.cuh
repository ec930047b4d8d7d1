// mbarrier: a barrier in shared memory that counts arrivals of threads and bytes of asynchronous copies.
//
// A phase completes when all its arrivals are in and every byte expected has come; the next begins at
// once. A wait names the parity of the phase it waits for, 0 for the first, and passes when that phase
// is over. On a fresh barrier the parity 1 passes: the "phase before" is over. So a ring of stages needs
// a full and an empty barrier a stage, and one bit that flips each time round: consumers wait full with
// it, producers wait empty with its opposite.
//
// mbarrier_init by one thread, mbarrier_init_fence by the same thread, then __syncthreads. At least one wait
// must see a phase complete before the first arrival of the next.
#pragma once

#include "site.h"

namespace cnnkernels {

// CNN_SHARED(Mbarrier, full, [kStages]); opaque.
struct alignas(8) Mbarrier {
  std::uint64_t state;
};

}  // namespace cnnkernels

#if defined(CNN_INTERPRETER)
#include "interpreter/mbarrier.h"
#endif

namespace cnnkernels {

// arrivals: how many complete a phase, 1 to 2^20 - 1.
CNN_DEVICE void mbarrier_init(Mbarrier* barrier, unsigned arrivals CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_init(barrier, arrivals, site);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
#endif
}

// Makes the calling thread's mbarrier_init visible to TMA. Needs sm_90.
CNN_DEVICE void mbarrier_init_fence(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_init_fence(site);
#else
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// Ends a barrier's life, so that its memory may hold something else or be initialised again.
CNN_DEVICE void mbarrier_invalidate(Mbarrier* barrier CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_invalidate(barrier, site);
#else
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

CNN_DEVICE void mbarrier_arrive(Mbarrier* barrier CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_arrive(barrier, site);
#else
  asm volatile(
      "{\n"
      ".reg .b64 token;\n"
      "mbarrier.arrive.shared::cta.b64 token, [%0];\n"
      "}" ::"r"(shared_address(barrier))
      : "memory");
#endif
}

// The same on the barrier that lies at the same place in the block with this rank in the cluster
// (cluster.cuh), which must not have ended; rank may be the calling block's own. It gives back what was read:
// what the thread wrote to memory before is not sure to be visible to the other block. Needs sm_90.
CNN_DEVICE void mbarrier_arrive_cluster(Mbarrier* barrier, unsigned rank CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_arrive_cluster(barrier, rank, site);
#else
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(barrier)), "r"(rank));
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
#endif
}

// Adds to the bytes the phase waits for, without arriving. Needs sm_90.
CNN_DEVICE void mbarrier_expect_bytes(Mbarrier* barrier, unsigned bytes CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_expect_bytes(barrier, bytes, site);
#else
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
#endif
}

// Adds to the bytes the phase waits for, then arrives. Copies may be issued before or after it. Needs sm_90.
CNN_DEVICE void mbarrier_arrive_expect_bytes(Mbarrier* barrier, unsigned bytes CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_expect_bytes(barrier, bytes, site);
  model::mbarrier_arrive(barrier, site);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
#endif
}

// Whether the phase of this parity is over.
CNN_DEVICE bool mbarrier_test(Mbarrier* barrier, unsigned parity CNN_SITE) {
#if defined(CNN_INTERPRETER)
  return model::mbarrier_test(barrier, parity, site);
#else
  unsigned done;
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 over, [%1], %2;\n"
      "selp.b32 %0, 1, 0, over;\n"
      "}"
      : "=r"(done)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return done != 0;
#endif
}

// Returns when the phase of this parity is over; what its arrivals and copies wrote is then visible.
CNN_DEVICE void mbarrier_wait(Mbarrier* barrier, unsigned parity CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mbarrier_wait(barrier, parity, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#else
  while (!mbarrier_test(barrier, parity)) {
  }
#endif
}

}  // namespace cnnkernels
