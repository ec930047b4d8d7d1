// What becomes of a sum before it is stored, in this order: activation(scale (sum + bias) + shift +
// residual).
#pragma once

#include "activation_kind.h"
#include "as_bits.h"

namespace cnnkernels {

// Null pointers stand for nothing to do. All are in the output's type; the arithmetic is the sums'.
struct Epilogue {
  const void *bias = nullptr, *scale = nullptr, *shift = nullptr;  // one a filter
  const void* residual = nullptr;                                  // one an output, in memory as it is
  Activation activation = Activation::none;
  std::int32_t unused = 0;
  AsBits<double> slope = 0;  // of leaky_relu below zero
};

}  // namespace cnnkernels
