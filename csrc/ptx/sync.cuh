// What threads of a block agree by, beyond __syncthreads: barriers of some of its warps, the fence towards
// the asynchronous units, the choice of one lane, and the hand-over of registers between warpgroups.
#pragma once

#include "site.h"

#if defined(CNN_INTERPRETER)
#include "interpreter/sync.h"
#endif

namespace cnnkernels {

// Barriers 1 to 15 (0 is __syncthreads). threads, a multiple of 32, is how many take part: those that wait in
// named_barrier_sync and those that only announce themselves by named_barrier_arrive.
CNN_DEVICE void named_barrier_sync(unsigned id, unsigned threads CNN_SITE) {
#if defined(CNN_INTERPRETER)
  interpreter::bar_sync(id, threads, site);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

CNN_DEVICE void named_barrier_arrive(unsigned id, unsigned threads CNN_SITE) {
#if defined(CNN_INTERPRETER)
  interpreter::bar_arrive(id, threads, site);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// Orders the calling thread's plain accesses to shared memory (cp.async's, once waited for, among them)
// before later ones by TMA and wgmma. Each writer calls it, then a barrier follows. Needs sm_90.
CNN_DEVICE void fence_proxy_async() {
#if defined(CNN_INTERPRETER)
  interpreter::fence_generic_writes();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// True in one lane of the warp, the same one every time. All 32 call it. Needs sm_90.
CNN_DEVICE bool elect_one(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  return model::elect_one(site);
#else
  unsigned chosen;
  asm volatile(
      "{\n"
      ".reg .pred mine;\n"
      "elect.sync _|mine, 0xffffffff;\n"
      "selp.b32 %0, 1, 0, mine;\n"
      "}"
      : "=r"(chosen));
  return chosen != 0;
#endif
}

// setmaxnreg: a warpgroup's threads give registers back to the block's pool, or take from it
// (waiting until there are enough). Count is the new number a thread may use, a multiple of 8 in
// 24..256. The kernel's CNN_KERNEL bound sets the number all start with: 65536 / threads,
// rounded down to a multiple of 8. Needs sm_90a.
template <int Count>
CNN_DEVICE void decrease_registers(CNN_SITE_ONLY) {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0, "setmaxnreg takes multiples of 8 in 24..256");
#if defined(CNN_INTERPRETER)
  model::change_registers(Count, false, site);
#else
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
#endif
}

template <int Count>
CNN_DEVICE void increase_registers(CNN_SITE_ONLY) {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0, "setmaxnreg takes multiples of 8 in 24..256");
#if defined(CNN_INTERPRETER)
  model::change_registers(Count, true, site);
#else
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
#endif
}

}  // namespace cnnkernels
