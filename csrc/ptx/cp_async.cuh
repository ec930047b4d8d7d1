// cp.async: copies of 4, 8 or 16 bytes from global to shared memory that bypass registers and complete later.
//
// Copies gather into a group by cp_async_commit(). cp_async_wait<N>() returns when at most the N
// youngest groups of the calling thread are still on their way; other threads need a barrier after
// it. If tensor cores (wgmma) or TMA read the data next, each thread also calls
// fence_proxy_async() between its wait and the barrier.
#pragma once

#include "mbarrier.cuh"

#if defined(CNN_INTERPRETER)
#include "interpreter/cp_async.h"
#endif

namespace cnnkernels {

// Copies Bytes, or writes zeros when !valid. Both pointers are aligned to Bytes; `global` must be readable
// even when !valid (give the tensor's base). 16 bytes bypass L1.
template <int Bytes>
CNN_DEVICE void cp_async(void* shared, const void* global, bool valid CNN_SITE) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async moves 4, 8 or 16 bytes");
#if defined(CNN_INTERPRETER)
  model::cp_async(Bytes, shared, global, valid, site);
#else
  const int bytes = valid ? Bytes : 0;  // what is not read is filled with zeros
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(Bytes), "r"(bytes)
                 : "memory");
  }
#endif
}

// Ends the group that the copies since the last call belong to; it may be empty.
CNN_DEVICE void cp_async_commit(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::cp_async_commit(site);
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N>
CNN_DEVICE void cp_async_wait(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::cp_async_wait(N, site);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Arrives on the barrier when all copies the calling thread has issued so far are complete.
// The barrier's number of arrivals counts it.
CNN_DEVICE void cp_async_arrive(Mbarrier* barrier CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::cp_async_arrive(barrier, site);
#else
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
#endif
}

}  // namespace cnnkernels
