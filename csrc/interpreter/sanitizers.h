// What the sanitizers are told. setup.py defines CNN_TSAN or CNN_ASAN for every file of a sanitized build,
// while the interpreter itself is compiled without instrumentation: it is the machine, not the program under
// test.
#pragma once

#include <cstddef>

#if defined(CNN_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
void __tsan_read_range(void*, unsigned long);
void __tsan_write_range(void*, unsigned long);
}
#elif defined(CNN_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cnnkernels::interpreter {

#if defined(CNN_TSAN)
inline void happens_before(const void* p) { __tsan_release(const_cast<void*>(p)); }
inline void happens_after(const void* p) { __tsan_acquire(const_cast<void*>(p)); }
inline void touch_read(const void* p, std::size_t bytes) { __tsan_read_range(const_cast<void*>(p), bytes); }
inline void touch_write(const void* p, std::size_t bytes) { __tsan_write_range(const_cast<void*>(p), bytes); }
#else
inline void happens_before(const void*) {}
inline void happens_after(const void*) {}
inline void touch_read(const void*, std::size_t) {}
inline void touch_write(const void*, std::size_t) {}
#endif

// While one lives, ThreadSanitizer ignores the running thread's accesses: the interpreter is at work on its
// behalf.
struct Unchecked {
#if defined(CNN_TSAN)
  Unchecked() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~Unchecked() {
    AnnotateIgnoreWritesEnd("", 0);
    AnnotateIgnoreReadsEnd("", 0);
  }
#else
  Unchecked() {}
  ~Unchecked() {}
#endif
  Unchecked(const Unchecked&) = delete;
  Unchecked& operator=(const Unchecked&) = delete;
};

// Shared memory that must not be touched, for AddressSanitizer.
#if defined(CNN_ASAN)
inline void forbid(const void* p, std::size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void allow(const void* p, std::size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}
#endif

}  // namespace cnnkernels::interpreter
