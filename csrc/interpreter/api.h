// What the models of csrc/ptx are written against: the running thread, meetings of a warp, shared memory and
// work that completes later. Everything here is called from inside a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

namespace cnnkernels::interpreter {

using Site = std::source_location;

// Ends the launch: the message reaches Python as KernelFault with file:line, block, thread, warp and lane.
[[noreturn]] void fault(Site site, const std::string& message);

unsigned lane_id();                    // 0..31
unsigned warp_id();                    // within the block
bool random_order();                   // is the schedule random?
std::uint64_t random();                // seeded, per block

// Lets other threads run. Suspends the calling thread until ready() holds; `what` names the wait in a deadlock
// report. ready() is polled by the scheduler on the calling thread's behalf.
void yield();
void wait_until(const std::function<bool()>& ready, const std::string& what, Site site);

// The lanes of `mask` meet; the last to arrive calls body(lane_values) once, where lane_values[i] points to what
// lane i brought (nullptr outside the mask); then all go on. A lane outside its own mask, an exited lane in the
// mask, or lanes meeting from two call sites or masks are faults.
void warp_meet(unsigned mask, void* mine, const std::function<void(void* const lane_values[32])>& body,
               const char* what, Site site);
// The same for the 128 threads of a warpgroup (four warps, the first a multiple of four).
void warpgroup_meet(void* mine, const std::function<void(void* const thread_values[128])>& body,
                    const char* what, Site site);

// Shared memory.
bool is_shared(const void* pointer, std::size_t bytes);                 // wholly inside this block's shared memory
std::uint32_t shared_address(const void* pointer);                      // the 32-bit address hardware would see
void* shared_pointer(std::uint32_t address);
// Faults unless [pointer, pointer + bytes) is shared memory of this block and aligned.
void check_shared(const void* pointer, std::size_t bytes, std::size_t alignment, const char* what, Site site);
void poison(void* pointer, std::size_t bytes);                          // fills with the NaN pattern

// Asynchronous work, per block. `action` runs at a moment the delivery policy chooses: at once (early), at a
// random later scheduling tick (random), or only when nothing else can run or finish() forces it (late).
enum class Delivery { early, late, random };
Delivery delivery();
std::uint64_t deliver_later(std::function<void()> action);              // returns a ticket
void finish(std::uint64_t ticket);                                      // runs it now if it has not run

// A slot of T for this CUDA thread, or for this block, made on first use and destroyed with the block.
template <class T> T& thread_state();
template <class T> T& block_state();

}  // namespace cnnkernels::interpreter

#include "state.h"
