// What the models of csrc/ptx are written against: the running thread, meetings of a warp, shared memory and
// work that completes later. Everything here is called from inside a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

#include "function_ref.h"
#include "sanitizers.h"

namespace cnnkernels::interpreter {

using Site = std::source_location;

// Ends the launch: the message reaches Python as KernelFault with file:line, block, thread, warp and lane.
[[noreturn]] void fault(Site site, const std::string& message);

unsigned lane_id();      // 0..31
unsigned warp_id();      // within the block
bool random_order();     // is the schedule random?
std::uint64_t random();  // seeded, per block

// Lets other threads run.
void yield();
// Suspends the calling thread until ready() holds. ready() is polled by the scheduler on the calling thread's
// behalf; what() names the wait in a deadlock report and is called for nothing else.
void wait_until(FunctionRef<bool()> ready, FunctionRef<std::string()> what, Site site);
inline void wait_until(FunctionRef<bool()> ready, const std::string& what, Site site) {
  wait_until(ready, [&] { return what; }, site);
}

// Barriers 0 to 15 of the block. `threads` is how many arrive, those of bar_sync and bar_arrive together; 0
// means all that are alive. The threads of bar_sync go on when the last one has arrived.
void bar_sync(unsigned id, unsigned threads, Site site);
void bar_arrive(unsigned id, unsigned threads, Site site);

// The lanes of `mask` meet; the last to arrive calls body(lane_values) once, where lane_values[i] points to
// what lane i brought (nullptr outside the mask); then all go on. A lane outside its own mask, an exited lane
// in the mask, or lanes meeting from two call sites or masks are faults.
void warp_meet(unsigned mask, void* mine, FunctionRef<void(void* const lane_values[32])> body,
               const char* what, Site site);
// The same for the 128 threads of a warpgroup (four warps, the first a multiple of four).
void warpgroup_meet(void* mine, FunctionRef<void(void* const thread_values[128])> body, const char* what,
                    Site site);

// The blocks of a cluster run side by side. Shared memory of another one is reached by what lies at the same
// place here: peer_pointer faults unless `rank` is in the cluster and that block has not ended. (Addresses of
// all blocks' shared memory are of one kind: shared_address gives the one within its block.)
unsigned cluster_rank();
unsigned cluster_size();
void* peer_pointer(const void* shared, unsigned rank, const char* what, Site site);
// The barrier of all threads of a cluster: each arrives, then waits, once a phase.
void cluster_arrive(Site site);
void cluster_wait(Site site);

// Shared memory.
bool is_shared(const void* pointer, std::size_t bytes);  // wholly inside this block's shared memory
std::uint32_t shared_address(const void* pointer);       // the 32-bit address hardware would see
void* shared_pointer(std::uint32_t address);
// Faults unless [pointer, pointer + bytes) is shared memory of this block and aligned.
void check_shared(const void* pointer, std::size_t bytes, std::size_t alignment, const char* what, Site site);
void poison(void* pointer, std::size_t bytes);  // fills with the NaN pattern

// Plain stores to shared memory that asynchronous units may read only after a fence of the thread that made
// them: generic_write notes one (and nothing of other memory), fence_generic_writes is the calling thread's
// fence, check_fenced faults where a unit would read one that has none. Known are stmatrix and vector stores.
void generic_write(const void* pointer, std::size_t bytes);
void fence_generic_writes();
void check_fenced(const void* pointer, std::size_t bytes, const char* what, Site site);

// Asynchronous work, per block. `action` runs at a moment the delivery policy chooses: at once (early), at a
// random later scheduling tick (random), or only when nothing else can run or finish() forces it (late).
// deliver_later() is in deliveries.h: what <functional> takes to read is spared those who do not call it.
enum class Delivery { early, late, random };
Delivery delivery();
void finish(std::uint64_t ticket);  // runs it now if it has not run

// In a delivered action: have the thread that issued it, or all threads of a block, ended already?
bool thread_ended();
bool block_ended(unsigned rank);

// Adds to a count that _interpreter.statistics() shows; `name` is a literal.
void count(const char* name, std::uint64_t amount = 1);

// Edges for ThreadSanitizer, which sees no order between CUDA threads but these (and __syncthreads,
// __syncwarp and named barriers): what came before happens_before(x) is ordered before what follows
// happens_after(x). Memory accesses made inside the bodies of meetings, ready() and delivered actions are not
// seen by it; touch_read and touch_write tell it of accesses a model makes for the calling thread. All of
// them are nothing in other builds.
//   happens_before(const void*)  happens_after(const void*)  touch_read(const void*, size_t) touch_write(...)
// They are in sanitizers.h.

// A slot of T for this CUDA thread, for this block, or for another one of the cluster, made on first use and
// destroyed with the block.
template <class T>
T& thread_state();
template <class T>
T& block_state();
template <class T>
T& block_state(unsigned rank);

}  // namespace cnnkernels::interpreter

#include "state.h"
