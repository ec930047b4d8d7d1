// mma.sync: a warp multiplies a whole tile of registers on tensor cores, d[i][j] += a[i] * b[j].
//
// An instruction multiplies A [m][k] by B [k][n]. With lane = 4 * g + c, its operands lie in registers so:
//   A, 16 rows of 32 bytes: register r holds the 4-byte word c + 4 * (r / 2) of row g + 8 * (r % 2)
//   B, 8 columns of 32 bytes: register r holds the 4-byte word c + 4 * r of column g
//   D, 16 x 8: element v is row g + 8 * (v / 2), column 2 * c + v % 2
// The words hold consecutive k, the lowest first. ldmatrix yields exactly these. For double (m8n8k4), a lane
// holds A[g][c], B[c][g] and D[g][2 * c], D[g][2 * c + 1].
#pragma once

#include "convert.cuh"
#include "site.h"

#if defined(CNN_INTERPRETER)
#include "interpreter/mma.h"
#endif

namespace cnnkernels {

// A float rounded to 10 bits of fraction (float_to_tf32). Names an operand type; a
// value is kept in std::uint32_t.
struct tf32 {};

// The shape of one instruction and what a lane holds of it.
template <class In>
struct Mma {
  using Operand = std::uint32_t;
  using Accumulator = float;
  static constexpr int m = 16, n = 8, k = 32 / sizeof(In);
  static constexpr int a = 4, b = 2, d = 4;
};
template <>
struct Mma<tf32> : Mma<float> {};
template <>
struct Mma<std::int8_t> : Mma<char> {
  using Accumulator = std::int32_t;
};
template <>
struct Mma<std::uint8_t> : Mma<std::int8_t> {};  // A is unsigned, B is signed
template <>
struct Mma<double> {
  using Operand = double;
  using Accumulator = double;
  static constexpr int m = 8, n = 8, k = 4;
  static constexpr int a = 1, b = 1, d = 2;
};

#if !defined(CNN_INTERPRETER)

// One instruction.
template <class In>
CNN_DEVICE void mma(typename Mma<In>::Accumulator (&d)[Mma<In>::d],
                    const typename Mma<In>::Operand (&a)[Mma<In>::a],
                    const typename Mma<In>::Operand (&b)[Mma<In>::b]);

#define CNN_MMA(type, shape, constraint)                                                  \
  template <>                                                                             \
  CNN_DEVICE void mma<type>(Mma<type>::Accumulator(&d)[4], const std::uint32_t (&a)[4],   \
                            const std::uint32_t (&b)[2]) {                                \
    asm volatile("mma.sync.aligned." shape                                                \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                        \
                 "{%0, %1, %2, %3};"                                                      \
                 : constraint(d[0]), constraint(d[1]), constraint(d[2]), constraint(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));     \
  }

CNN_MMA(float16, "m16n8k16.row.col.f32.f16.f16.f32", "+f")
CNN_MMA(bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32", "+f")
CNN_MMA(tf32, "m16n8k8.row.col.f32.tf32.tf32.f32", "+f")
CNN_MMA(std::int8_t, "m16n8k32.row.col.s32.s8.s8.s32", "+r")
CNN_MMA(std::uint8_t, "m16n8k32.row.col.s32.u8.s8.s32", "+r")
#undef CNN_MMA

template <>
CNN_DEVICE void mma<double>(double (&d)[2], const double (&a)[1], const double (&b)[1]) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+d"(d[0]), "+d"(d[1])
               : "d"(a[0]), "d"(b[0]));
}

#endif

// All 32 lanes of the warp call it together. int8 and uint8 sums wrap modulo 2^32; float and double
// sums have an order of the hardware's own.
template <class In, int MT, int NT>
CNN_DEVICE void mma_tile(typename Mma<In>::Accumulator (&d)[MT][NT][Mma<In>::d],
                         const typename Mma<In>::Operand (&a)[MT][Mma<In>::a],
                         const typename Mma<In>::Operand (&b)[NT][Mma<In>::b] CNN_SITE) {
#if defined(CNN_INTERPRETER)
  model::mma_tile(model::operand_format<In>(), MT, NT, d, a, b, site);
#else
#pragma unroll
  for (int i = 0; i < MT; ++i) {
#pragma unroll
    for (int j = 0; j < NT; ++j) mma<In>(d[i][j], a[i], b[j]);
  }
#endif
}

}  // namespace cnnkernels
