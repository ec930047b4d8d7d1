// wgmma: a warpgroup (128 threads, four warps from a multiple of four) multiplies tiles of shared memory on
// tensor cores, D [64][N] = A [64][k] * B [k][N] (+ D), asynchronously. Needs sm_90a.
//
// k is 32 bytes: 16 of float16 or bfloat16, 8 of tf32, 32 of int8 (or of uint8 in A by int8 in B). N is a
// multiple of 8 up to 256 (for int8: of 16, or 8 or 24). Thread t of the warpgroup holds in d[v]
//   row 16 * (t / 32) + t % 32 / 4 + 8 * (v / 2 % 2), column 8 * (v / 4) + 2 * (t % 4) + v % 2
// of D: a warp has 16 rows, each as mma.sync has them.
//
//   wgmma_fence(d);      // before the first, and after d was read or written by anything else
//   wgmma<bfloat16, N>(d, a, b, accumulate);  ...
//   wgmma_commit();
//   wgmma_wait<0>(d);    // only now d may be read and the tiles overwritten
//
// Data that threads wrote to shared memory need fence_proxy_async() by each of them and a barrier before;
// data of TMA only the wait for its mbarrier. All 128 threads make every call together, with the same
// descriptors.
#pragma once

#include <type_traits>

#include "mma.cuh"
#include "swizzle.h"

#if defined(CNN_INTERPRETER)
#include "interpreter/wgmma.h"
#else
#include "wgmma_operands.h"
#endif

namespace cnnkernels {

// Which index of an operand is dense in shared memory: k, or, for 16-bit types alone, its row (A) or
// column (B).
enum class Major : int { k = 0, mn = 1 };

// Describes an operand's tile. An operand is rows (of A, or columns of B) by k; e are the bytes of an
// element. Swizzled, it is read from these offsets to `start`, and the address is swizzled:
//   k-major:   row r, byte b of k   r % 8 * span + r / 8 * stride_bytes + b      (leading_bytes is not used)
//   mn-major:  row r, k             r % w * e + r / w * leading_bytes + k % 8 * span + k / 8 * stride_bytes
// with w = span / e. Without swizzle, blocks of 8 rows of 16 dense bytes are placed anywhere, w = 16 / e:
//   k-major:   row r, byte b of k   r % 8 * 16 + r / 8 * stride_bytes + b / 16 * leading_bytes + b % 16
//   mn-major:  row r, k             r % w * e + r / w * stride_bytes + k % 8 * 16 + k / 8 * leading_bytes
CNN_DEVICE std::uint64_t wgmma_descriptor(const void* start, Swizzle swizzle, std::uint32_t leading_bytes,
                                          std::uint32_t stride_bytes CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::check_descriptor(start, leading_bytes, stride_bytes, site);
  const std::uint64_t address = interpreter::shared_address(start);
#else
  const std::uint64_t address = shared_address(start);
#endif
  // 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes
  const std::uint64_t pattern = (4 - static_cast<std::uint64_t>(swizzle)) & 3;
  return (address & 0x3ffff) >> 4 | std::uint64_t(leading_bytes >> 4) << 16 |
         std::uint64_t(stride_bytes >> 4) << 32 | pattern << 62;
}

// A tile of dense rows of span bytes of k, as a TMA box of that width leaves it. `start` goes on by 32 bytes
// a step of k and by 8 * span bytes every 8 rows; the tile begins where the swizzle's pattern does.
CNN_DEVICE std::uint64_t wgmma_k_major(const void* start, Swizzle swizzle CNN_SITE) {
#if defined(CNN_INTERPRETER)
  return wgmma_descriptor(start, swizzle, 16, 8 * swizzle_span(swizzle), site);
#else
  return wgmma_descriptor(start, swizzle, 16, 8 * swizzle_span(swizzle));
#endif
}

// TMA boxes of span bytes of rows by some k, one box every box_bytes. `start` goes on by 16 * span bytes a
// step of k.
CNN_DEVICE std::uint64_t wgmma_mn_major(const void* start, Swizzle swizzle,
                                        std::uint32_t box_bytes CNN_SITE) {
#if defined(CNN_INTERPRETER)
  return wgmma_descriptor(start, swizzle, box_bytes, 8 * swizzle_span(swizzle), site);
#else
  return wgmma_descriptor(start, swizzle, box_bytes, 8 * swizzle_span(swizzle));
#endif
}

// The descriptor of the same tile begun so many bytes (a multiple of 16) further on.
CNN_HOST_DEVICE std::uint64_t wgmma_advance(std::uint64_t descriptor, std::uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

#if !defined(CNN_INTERPRETER)

// Keeps the compiler from moving what is done with d across.
template <class T, int R>
CNN_DEVICE void wgmma_pin(T (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    if constexpr (std::is_same_v<T, float>)
      asm volatile("" : "+f"(d[i])::"memory");
    else
      asm volatile("" : "+r"(d[i])::"memory");
  }
}

// The two forms of an instruction of N columns: A from shared memory, and A from registers, whose fragment is
// that of mma.sync's A for each warp's 16 rows. CNN_TYPE, CNN_SCALES_* and CNN_CONSTRAINT are set where they
// are expanded.
#define CNN_WGMMA_SHARED(COLUMNS, ACCUMULATORS, A, B, P, TA, TB, U0, U1)                             \
  if constexpr (N == COLUMNS) {                                                                      \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P                                             \
                 ", 0;\n"                                                                            \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS CNN_TYPE " {" CNN_NAMES_##ACCUMULATORS \
                 "}, %" #A ", %" #B ", p" CNN_SCALES_SHARED(TA, TB) ";\n}"                           \
                 : CNN_OPERANDS_##ACCUMULATORS(CNN_CONSTRAINT)                                       \
                 : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(MajorA)), "n"(int(MajorB)));        \
  }
#define CNN_WGMMA_REGISTERS(COLUMNS, ACCUMULATORS, A0, A1, A2, A3, B, P, TB)                               \
  if constexpr (N == COLUMNS) {                                                                            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P                                                   \
                 ", 0;\n"                                                                                  \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS CNN_TYPE " {" CNN_NAMES_##ACCUMULATORS       \
                 "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", p" CNN_SCALES_REGISTERS(TB) ";\n}" \
                 : CNN_OPERANDS_##ACCUMULATORS(CNN_CONSTRAINT)                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)),               \
                   "n"(int(MajorB)));                                                                      \
  }
#define CNN_WGMMA(type)                                                                                   \
  template <int N, Major MajorA, Major MajorB>                                                            \
  CNN_DEVICE void wgmma_shared(type, Mma<type>::Accumulator(&d)[N / 2], std::uint64_t a, std::uint64_t b, \
                               bool accumulate) {                                                         \
    CNN_EVERY_WIDTH(CNN_WGMMA_SHARED)                                                                     \
  }                                                                                                       \
  template <int N, Major MajorB>                                                                          \
  CNN_DEVICE void wgmma_registers(type, Mma<type>::Accumulator(&d)[N / 2], const std::uint32_t (&a)[4],   \
                                  std::uint64_t b, bool accumulate) {                                     \
    CNN_EVERY_WIDTH(CNN_WGMMA_REGISTERS)                                                                  \
  }

// 16-bit: signs of A and B, then whether they are mn-major.
#define CNN_CONSTRAINT "+f"
#define CNN_SCALES_SHARED(TA, TB) ", 1, 1, %" #TA ", %" #TB
#define CNN_SCALES_REGISTERS(TB) ", 1, 1, %" #TB
#define CNN_TYPE "k16.f32.f16.f16"
CNN_WGMMA(float16)
#undef CNN_TYPE
#define CNN_TYPE "k16.f32.bf16.bf16"
CNN_WGMMA(bfloat16)
#undef CNN_TYPE
#undef CNN_SCALES_SHARED
#undef CNN_SCALES_REGISTERS

// tf32: the signs alone.
#define CNN_SCALES_SHARED(TA, TB) ", 1, 1"
#define CNN_SCALES_REGISTERS(TB) ", 1, 1"
#define CNN_TYPE "k8.f32.tf32.tf32"
CNN_WGMMA(tf32)
#undef CNN_TYPE
#undef CNN_SCALES_SHARED
#undef CNN_SCALES_REGISTERS
#undef CNN_CONSTRAINT

// int8, and uint8 by int8: neither.
#define CNN_CONSTRAINT "+r"
#define CNN_SCALES_SHARED(TA, TB)
#define CNN_SCALES_REGISTERS(TB)
#define CNN_TYPE "k32.s32.s8.s8"
CNN_WGMMA(std::int8_t)
#undef CNN_TYPE
#define CNN_TYPE "k32.s32.u8.s8"
CNN_WGMMA(std::uint8_t)
#undef CNN_TYPE
#undef CNN_SCALES_SHARED
#undef CNN_SCALES_REGISTERS
#undef CNN_CONSTRAINT
#undef CNN_WGMMA
#undef CNN_WGMMA_SHARED
#undef CNN_WGMMA_REGISTERS

#endif

template <class In, int N, Major MajorA = Major::k, Major MajorB = Major::k>
CNN_HOST_DEVICE constexpr void check_wgmma() {
  static_assert(N >= 8 && N <= 256 && N % 8 == 0, "wgmma's N is a multiple of 8 in 8..256");
  static_assert(!std::is_integral_v<In> || N % 16 == 0 || N == 8 || N == 24,
                "the int8 wgmma's N is 8, 24 or a multiple of 16");
  static_assert((MajorA == Major::k && MajorB == Major::k) || sizeof(In) == 2,
                "only 16-bit operands can be mn-major");
}

// d = A * B + (accumulate ? d : 0), both operands in shared memory.
template <class In, int N, Major MajorA = Major::k, Major MajorB = Major::k>
CNN_DEVICE void wgmma(typename Mma<In>::Accumulator (&d)[N / 2], std::uint64_t a, std::uint64_t b,
                      bool accumulate CNN_SITE) {
  check_wgmma<In, N, MajorA, MajorB>();
#if defined(CNN_INTERPRETER)
  model::wgmma({model::operand_format<In>(), N, MajorA == Major::mn, MajorB == Major::mn, accumulate, d,
                nullptr, a, b},
               site);
#else
  wgmma_shared<N, MajorA, MajorB>(In{}, d, a, b, accumulate);
#endif
}

// The same with A in registers: each warp's 16 rows as mma.sync's fragment. They must not change before the
// wait.
template <class In, int N, Major MajorB = Major::k>
CNN_DEVICE void wgmma(typename Mma<In>::Accumulator (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b,
                      bool accumulate CNN_SITE) {
  check_wgmma<In, N, Major::k, MajorB>();
#if defined(CNN_INTERPRETER)
  model::wgmma({model::operand_format<In>(), N, false, MajorB == Major::mn, accumulate, d, a, 0, b}, site);
#else
  wgmma_registers<N, MajorB>(In{}, d, a, b, accumulate);
#endif
}

// Orders what was done with the accumulators d before the wgmmas that follow. d may be one set or several.
template <class T, int R>
CNN_DEVICE void wgmma_fence(T (&d)[R] CNN_SITE) {
#if defined(CNN_INTERPRETER)
  static_cast<void>(d);
  model::wgmma_fence(site);
#else
  wgmma_pin(d);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
template <class T, int M, int R>
CNN_DEVICE void wgmma_fence(T (&d)[M][R] CNN_SITE) {
#if defined(CNN_INTERPRETER)
  static_cast<void>(d);
  model::wgmma_fence(site);
#else
#pragma unroll
  for (int i = 0; i < M; ++i) wgmma_pin(d[i]);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Ends the group that the wgmmas since the last call belong to.
CNN_DEVICE void wgmma_commit(CNN_SITE_ONLY) {
#if defined(CNN_INTERPRETER)
  model::wgmma_commit(site);
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Returns when all but the Left youngest groups are complete. d are accumulators that are read or written
// next.
template <int Left, class T, int R>
CNN_DEVICE void wgmma_wait(T (&d)[R] CNN_SITE) {
  static_assert(Left >= 0 && Left <= 7, "wgmma_wait leaves 0 to 7 groups");
#if defined(CNN_INTERPRETER)
  static_cast<void>(d);
  model::wgmma_wait(Left, site);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
  wgmma_pin(d);
#endif
}
template <int Left, class T, int M, int R>
CNN_DEVICE void wgmma_wait(T (&d)[M][R] CNN_SITE) {
  static_assert(Left >= 0 && Left <= 7, "wgmma_wait leaves 0 to 7 groups");
#if defined(CNN_INTERPRETER)
  static_cast<void>(d);
  model::wgmma_wait(Left, site);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
#pragma unroll
  for (int i = 0; i < M; ++i) wgmma_pin(d[i]);
#endif
}

}  // namespace cnnkernels
