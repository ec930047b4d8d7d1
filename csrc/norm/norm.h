// Launchers of batch normalization: plain C++, device pointers in, asynchronous on `stream`.
//
//   y = activation(weight[c] (x - mean[c]) / sqrt(var[c] + eps) + bias[c] + residual)
//
// Images are dense, of one element type and lie alike. No extent is 0. Arithmetic is in fp32 (fp64 for fp64),
// here called A, and rounded once. A sum's order is a function of the shape alone: the same bits on every
// run.
#pragma once

#include <cstdint>

#include "../common/as_bits.h"
#include "../common/geometry.h"

namespace cnnkernels {
enum class DType : int;
enum class Activation : int;
}  // namespace cnnkernels

namespace cnnkernels::norm {

// Any number of spatial axes: they are inner in NCHW; in NHWC they are outer, as the batch is, and inner is
// 1.
struct Shape {
  std::int64_t outer, channels, inner;
};

// One number a channel, of any floating type; null for what is not there.
struct Numbers {
  void* at = nullptr;
  std::int64_t dtype = 0;
};

// How y is made of x: numbers of A.
struct Normalization {
  Numbers mean, var, weight, bias;
  AsBits<double> eps = 0, slope = 0;
  std::int64_t activation = 0;
};

// Bytes of what the others call workspace: two sums of each part of a channel, and what they become.
inline constexpr std::int64_t kOfChannels = 3;
std::int64_t workspace(DType dtype, const Shape& shape);

// mean and var [C] of A: of x, the latter biased. Running ones that are there become
// (1 - momentum) running + momentum new, the variance's new one unbiased.
void statistics(DType dtype, const Shape& shape, const void* input, void* mean, void* var,
                const Numbers& running_mean, const Numbers& running_var, double momentum, void* workspace,
                std::uintptr_t stream);

void normalize(DType dtype, const Shape& shape, const Normalization& how, const void* input,
               const void* residual, void* output, std::uintptr_t stream);

// What backward reads and writes. `residual` or `output` is of the forward, where the activation's derivative
// can not be read off x alone: the latter for activations whose own value tells it. Of the gradients null
// ones are not wanted; grad_weight and grad_bias are of any type.
struct Gradients {
  const void *grad_output, *input, *residual, *output;
  void *grad_input, *grad_residual;
  Numbers grad_weight, grad_bias;
};

// `training`: mean and var are x's own, and so have a derivative.
void backward(DType dtype, const Shape& shape, const Normalization& how, bool training,
              const Gradients& tensors, void* workspace, std::uintptr_t stream);

// sums [2][C] of A: those of a and of a (b - center); a null center is 0.
void sums(DType dtype, const Shape& shape, const void* a, const void* b, const void* center, void* sums,
          void* workspace, std::uintptr_t stream);

// One number of A a channel each; null for 0.
struct Coefficients {
  const void *gamma, *center, *delta, *alpha, *beta;
};

// result = gamma (x - center) + delta + alpha a + beta b; x, a or b may be null.
void combine(DType dtype, const Shape& shape, const Coefficients& numbers, const void* x, const void* a,
             const void* b, void* result, std::uintptr_t stream);

}  // namespace cnnkernels::norm
