#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>

#if !defined(CNN_UCONTEXT)
#include <ucontext.h>

// void cnnkernels_switch(void** save, void* to): pushes what a call preserves, swaps the stacks, pops. The
// floating point control words are left alone: kernels do not change them. Threads mostly switch at the same
// depth of the same calls, so the processor's return predictor stays right across a `ret`.
extern "C" __attribute__((visibility("hidden"))) void cnnkernels_resume();
extern "C" __attribute__((visibility("hidden"))) void cnnkernels_start();
asm(R"(
  .text
  .p2align 4
  .hidden cnnkernels_switch
  .globl cnnkernels_switch
  .type cnnkernels_switch, @function
cnnkernels_switch:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  .hidden cnnkernels_resume
  .globl cnnkernels_resume
cnnkernels_resume:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
  .size cnnkernels_switch, .-cnnkernels_switch

  .p2align 4
  .hidden cnnkernels_start
  .globl cnnkernels_start
  .type cnnkernels_start, @function
cnnkernels_start:
  .cfi_startproc
  .cfi_undefined rip
  callq *%rbx
  ud2
  .cfi_endproc
  .size cnnkernels_start, .-cnnkernels_start
)");
#endif

namespace cnnkernels::interpreter {

void prepare(Fiber& fiber, void (*entry)()) {
  allow(fiber.stack, kStackBytes);
#if defined(CNN_UCONTEXT)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes - fiber.colour;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#else
  // What cnnkernels_resume pops: r15 r14 r13 r12 rbx rbp and where to go, with the stack aligned as in a
  // caller.
  void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - fiber.colour) - 2;
  std::memset(top - 7, 0, 9 * sizeof(void*));
  top[-7 + 4] = reinterpret_cast<void*>(entry);
  top[-7 + 6] = reinterpret_cast<void*>(&cnnkernels_start);
  fiber.stack_pointer = top - 7;
#endif
#if defined(CNN_ASAN)
  fiber.fake_stack = nullptr;
  fiber.bottom = fiber.stack;
  fiber.size = kStackBytes;
#endif
}

void adopt([[maybe_unused]] Fiber& host) {
#if defined(CNN_TSAN)
  host.tsan = __tsan_get_current_fiber();
#elif defined(CNN_ASAN)
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* bottom = nullptr;
  pthread_attr_getstack(&attributes, &bottom, &host.size);
  host.bottom = bottom;
  pthread_attr_destroy(&attributes);
#endif
}

void leave_fiber(Fiber& from, Fiber& to) {
  announce(to, nullptr);
  swap_stacks(from, to);
  __builtin_unreachable();
}

void switch_from_signal([[maybe_unused]] void* signal_context, Fiber& to) {
#if defined(CNN_ASAN)
  announce(to, nullptr);
#endif
#if defined(CNN_UCONTEXT)
  setcontext(&to.context);
#else
  auto& registers = static_cast<ucontext_t*>(signal_context)->uc_mcontext.gregs;
  registers[REG_RSP] = reinterpret_cast<greg_t>(to.stack_pointer);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&cnnkernels_resume);
#endif
}

void arrived_from_signal([[maybe_unused]] Fiber& to) {
#if defined(CNN_TSAN)
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
}

namespace {

std::size_t page() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

char* Stacks::at(std::size_t i) {
  const std::size_t stride = kStackBytes + page();
  char*& chunk = chunks_[i / kChunk];
  if (chunk == nullptr) {
    void* memory = mmap(nullptr, kChunk * stride, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    chunk = static_cast<char*>(memory);
    for (std::size_t k = 0; k < kChunk; ++k) {
      if (mprotect(chunk + k * stride, page(), PROT_NONE) != 0) throw std::bad_alloc();
    }
  }
  return chunk + (i % kChunk) * stride + page();
}

bool Stacks::guards(std::size_t i, std::uintptr_t address) const {
  const char* chunk = chunks_[i / kChunk];
  if (chunk == nullptr) return false;
  const auto below = reinterpret_cast<std::uintptr_t>(chunk + (i % kChunk) * (kStackBytes + page()));
  return address >= below && address < below + page();
}

void Stacks::renew([[maybe_unused]] std::size_t i) {
#if defined(CNN_TSAN)
  // Only the pages in use: they are at the top, and each costs ThreadSanitizer four of its own.
  char* const stack = at(i);
  unsigned char resident[kStackBytes / 4096];
  if (mincore(stack, kStackBytes, resident) != 0) throw std::bad_alloc();
  std::size_t untouched = 0;
  while (untouched < kStackBytes && (resident[untouched / page()] & 1) == 0) untouched += page();
  if (untouched == kStackBytes) return;
  if (mmap(stack + untouched, kStackBytes - untouched, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
#endif
}

#if defined(CNN_TSAN)
void RaceThreads::give(Fiber& fiber, std::size_t i, const std::string& name) {
  void*& thread = threads_[(i + first_) % kMost];
  if (thread == nullptr) thread = __tsan_create_fiber(0);
  fiber.tsan = thread;
  __tsan_set_fiber_name(thread, name.c_str());
}

void RaceThreads::forget() {
  for (void*& thread : threads_) {
    if (thread != nullptr) __tsan_destroy_fiber(thread);
    thread = nullptr;
  }
}
#endif

Stacks::~Stacks() {
  for (char* chunk : chunks_) {
    if (chunk != nullptr) munmap(chunk, kChunk * (kStackBytes + page()));
  }
}

}  // namespace cnnkernels::interpreter
