// ldmatrix and stmatrix: a warp moves 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//
// A matrix is eight rows of 16 bytes, which may lie anywhere. Lane 8 * m + r names row r of matrix m (x1
// reads the addresses of lanes 0-7, x2 of lanes 0-15, x4 of all). Register m of lane 4 * g + c then
// holds elements 2 * c (low half) and 2 * c + 1 of row g of matrix m; with _trans, of column g. Without
// _trans the same serves 8-bit and 32-bit elements: lane 4 * g + c gets the c-th 4-byte word of row g.
// stmatrix is the inverse and needs sm_90.
#pragma once

#include "site.h"

#if defined(CNN_INTERPRETER)
#include "interpreter/ldmatrix.h"
#endif

namespace cnnkernels {

#if defined(CNN_INTERPRETER)

#define CNN_LDMATRIX(count, suffix, transposed)                                                       \
  CNN_DEVICE void ldmatrix_x##count##suffix(std::uint32_t (&to)[count], const void* row CNN_SITE) {   \
    model::ldmatrix(to, count, transposed, row, site);                                                \
  }                                                                                                   \
  CNN_DEVICE void stmatrix_x##count##suffix(void* row, const std::uint32_t (&from)[count] CNN_SITE) { \
    model::stmatrix(row, from, count, transposed, site);                                              \
  }
CNN_LDMATRIX(1, , false)
CNN_LDMATRIX(2, , false)
CNN_LDMATRIX(4, , false)
CNN_LDMATRIX(1, _trans, true)
CNN_LDMATRIX(2, _trans, true)
CNN_LDMATRIX(4, _trans, true)
#undef CNN_LDMATRIX

#else

#define CNN_PARENTHESES(...) __VA_ARGS__
#define CNN_LDMATRIX(count, suffix, layout, registers, outputs)                            \
  CNN_DEVICE void ldmatrix_x##count##suffix(std::uint32_t (&to)[count], const void* row) { \
    asm volatile("ldmatrix.sync.aligned.m8n8.x" #count layout ".shared.b16 " registers     \
                 : CNN_PARENTHESES outputs                                                 \
                 : "r"(shared_address(row))                                                \
                 : "memory");                                                              \
  }
#define CNN_OUT1 ("=r"(to[0]))
#define CNN_OUT2 ("=r"(to[0]), "=r"(to[1]))
#define CNN_OUT4 ("=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]))
CNN_LDMATRIX(1, , "", "{%0}, [%1];", CNN_OUT1)
CNN_LDMATRIX(2, , "", "{%0, %1}, [%2];", CNN_OUT2)
CNN_LDMATRIX(4, , "", "{%0, %1, %2, %3}, [%4];", CNN_OUT4)
CNN_LDMATRIX(1, _trans, ".trans", "{%0}, [%1];", CNN_OUT1)
CNN_LDMATRIX(2, _trans, ".trans", "{%0, %1}, [%2];", CNN_OUT2)
CNN_LDMATRIX(4, _trans, ".trans", "{%0, %1, %2, %3}, [%4];", CNN_OUT4)
#undef CNN_LDMATRIX
#undef CNN_OUT1
#undef CNN_OUT2
#undef CNN_OUT4

#define CNN_STMATRIX(count, suffix, layout, registers, inputs)                               \
  CNN_DEVICE void stmatrix_x##count##suffix(void* row, const std::uint32_t (&from)[count]) { \
    asm volatile("stmatrix.sync.aligned.m8n8.x" #count layout                                \
                 ".shared.b16 [%0], " registers::"r"(shared_address(row)),                   \
                 CNN_PARENTHESES inputs                                                      \
                 : "memory");                                                                \
  }
#define CNN_IN1 ("r"(from[0]))
#define CNN_IN2 ("r"(from[0]), "r"(from[1]))
#define CNN_IN4 ("r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3]))
CNN_STMATRIX(1, , "", "{%1};", CNN_IN1)
CNN_STMATRIX(2, , "", "{%1, %2};", CNN_IN2)
CNN_STMATRIX(4, , "", "{%1, %2, %3, %4};", CNN_IN4)
CNN_STMATRIX(1, _trans, ".trans", "{%1};", CNN_IN1)
CNN_STMATRIX(2, _trans, ".trans", "{%1, %2};", CNN_IN2)
CNN_STMATRIX(4, _trans, ".trans", "{%1, %2, %3, %4};", CNN_IN4)
#undef CNN_STMATRIX
#undef CNN_IN1
#undef CNN_IN2
#undef CNN_IN4
#undef CNN_PARENTHESES

#endif

}  // namespace cnnkernels
