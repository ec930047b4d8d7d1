// Stacks that take turns on one OS thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "sanitizers.h"

// x86-64 has a stack switch of its own (some 3 ns); -DCNN_UCONTEXT=1 selects the portable one (some 300 ns:
// it enters the kernel for the signal mask).
#if !defined(CNN_UCONTEXT) && !(defined(__x86_64__) && defined(__linux__))
#define CNN_UCONTEXT 1
#endif
#if defined(CNN_UCONTEXT)
#include <ucontext.h>
#else
extern "C" __attribute__((visibility("hidden"))) void cnnkernels_switch(void** save, void* to);
#endif

namespace cnnkernels::interpreter {

#if defined(CNN_ASAN)
inline constexpr std::size_t kStackBytes = 256 * 1024;  // its report runs on the fiber's stack
#else
inline constexpr std::size_t kStackBytes = 64 * 1024;
#endif

struct Fiber {
#if defined(CNN_UCONTEXT)
  ucontext_t context;
#else
  void* stack_pointer = nullptr;
#endif
  char* stack = nullptr;   // lowest byte; null for the stack the OS thread came with
  std::size_t colour = 0;  // bytes left free at the top, different for neighbours: equal offsets within a
                           // page would put all stacks in the same few sets of the first-level cache
#if defined(CNN_TSAN)
  void* tsan = nullptr;
#elif defined(CNN_ASAN)
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;
#endif
};

// Makes a fiber that will call entry() when first switched to; entry() must never return.
void prepare(Fiber& fiber, void (*entry)());
// Makes `host` stand for the stack this is called on.
void adopt(Fiber& host);
// Leaves `from`, continues `to`; returns when somebody switches to `from` again.
inline void switch_fiber(Fiber& from, Fiber& to);
// The same for a `from` that will never be continued.
[[noreturn]] void leave_fiber(Fiber& from, Fiber& to);
// To be called first by a fiber's entry.
inline void entered(Fiber& fiber);
// In a signal handler, on `from`: continues `to` when the handler returns, or at once.
void switch_from_signal(void* signal_context, Fiber& to);
// To be called where `to` continues after switch_from_signal, after switch_fiber has returned.
void arrived_from_signal(Fiber& to);

// Stacks in one mapping, each above an inaccessible page.
class Stacks {
 public:
  ~Stacks();
  // The lowest byte of stack i. Maps more stacks where needed.
  char* at(std::size_t i);
  // Does an address lie in the page below stack i?
  bool guards(std::size_t i, std::uintptr_t address) const;
  // ThreadSanitizer would take one block's use of a stack for a race with the next one's: gives it new
  // memory.
  void renew(std::size_t i);

 private:
  static constexpr std::size_t kChunk = 32;  // stacks of a warp
  static constexpr std::size_t kMostChunks = 32;
  char* chunks_[kMostChunks] = {};
};

#if defined(CNN_TSAN)
// ThreadSanitizer's threads behind the CUDA threads. Making one costs 0.3 ms, so they are used again, each
// block beginning at another one: an order seen between one thread of a block and one of the next hides no
// race between the many others.
class RaceThreads {
 public:
  void next_block() { first_ += 37; }
  void give(Fiber& fiber, std::size_t i, const std::string& name);
  void forget();  // after a fault: their call stacks are left as they were

 private:
  static constexpr std::size_t kMost = 1024;
  void* threads_[kMost] = {};
  std::size_t first_ = 0;
};
#endif

// Tells a sanitizer that the running stack is about to be left.
inline void announce([[maybe_unused]] Fiber& to, [[maybe_unused]] void** fake_stack) {
#if defined(CNN_TSAN)
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#elif defined(CNN_ASAN)
  __sanitizer_start_switch_fiber(fake_stack, to.bottom, to.size);
#endif
}

inline void entered([[maybe_unused]] Fiber& fiber) {
#if defined(CNN_ASAN)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

inline void swap_stacks(Fiber& from, Fiber& to) {
#if defined(CNN_UCONTEXT)
  swapcontext(&from.context, &to.context);
#else
  cnnkernels_switch(&from.stack_pointer, to.stack_pointer);
#endif
}

inline void switch_fiber(Fiber& from, Fiber& to) {
#if defined(CNN_ASAN)
  announce(to, &from.fake_stack);
#else
  announce(to, nullptr);
#endif
  swap_stacks(from, to);
  entered(from);
}

}  // namespace cnnkernels::interpreter
