// depthwise_separable_conv2d's launchers in plain C++: pointers, sizes and a stream come in; shapes were
// checked by the caller.
//
// z[n, m, p, q] = bd[m] + sum over r, s of x[n, m / multiplier, p stride_h - pad_h + r dilation_h, ...] wd[m,
// r, s] y[n, k, p, q] = b(bp[k] + sum over m of wp[k, m] a(z[n, m, p, q])), a and b the two activations.
// Rounded where two layers one after the other would round: z, a(z), the pointwise sum and b of it.
// Activations dense in `layout`; both filters lie as [m][r][s] and [k][m] beside either.
#pragma once

#include <cstddef>

#include "../common/activation_kind.h"
#include "../common/geometry.h"
#include "plan.h"

namespace cnnkernels {
enum class DType : int;  // common/types.h
struct Gpu;              // common/gpu.h
}  // namespace cnnkernels

namespace cnnkernels::depthwise_separable_conv {

struct Problem {
  ConvGeometry geometry;  // the depthwise convolution's: k counts the intermediate's channels, groups = c
  std::int64_t filters;   // of the pointwise convolution: y's channels
  Layout layout;
  DType dtype;  // of every tensor; 16-bit types are summed in fp32
  bool tf32;    // may fp32 operands of the pointwise products be rounded to tf32 for the tensor cores?
  Activation depthwise_activation = Activation::none, pointwise_activation = Activation::none;
  double slope = 0;  // leaky_relu's
};

struct Tensors {
  const void* input = nullptr;
  const void* depthwise_weight = nullptr;
  const void* pointwise_weight = nullptr;
  const void* depthwise_bias = nullptr;  // or null
  const void* pointwise_bias = nullptr;  // or null
  void* output = nullptr;
  void* intermediate = nullptr;  // takes z; or null
};

// `plan` null: select.h decides. A plan that cannot serve is refused with std::invalid_argument.
void forward(const Problem& problem, const Tensors& tensors, std::uintptr_t stream,
             const Plan* plan = nullptr);

// z alone, with the bits that forward gives it.
void intermediate(const Problem& problem, const Tensors& tensors, std::uintptr_t stream,
                  const Plan* plan = nullptr);

// With g the error of y (already through b'):
//
//   grad_intermediate[n, m, p, q] = a'(z[n, m, p, q]) sum over k of wp[k, m] g[n, k, p, q]
//   grad_pointwise[k, m] = sum over n, p, q of g[n, k, p, q] a(z[n, m, p, q])
//
// rounded where two layers one after the other would round. Either result may be null.
struct BackwardTensors {
  const void* grad_output = nullptr;
  const void* input = nullptr;
  const void* depthwise_weight = nullptr;
  const void* pointwise_weight = nullptr;
  const void* depthwise_bias = nullptr;  // or null
  const void* intermediate = nullptr;    // z, where it was saved; null: it is made anew
  void* grad_intermediate = nullptr;
  void* grad_pointwise = nullptr;
  void* workspace = nullptr;  // backward_workspace() bytes, where grad_pointwise is asked for
};

struct BackwardPlan {
  Reader reader = Reader::elements;
  int parts = 1;  // of the pixels, at most; each has sums of grad_pointwise of its own
};

std::size_t backward_workspace(const Problem& problem, const BackwardPlan* plan = nullptr);

void backward(const Problem& problem, const BackwardTensors& tensors, std::uintptr_t stream,
              const BackwardPlan* plan = nullptr);

// Does backward() pay, beside the gradients of two layers one after the other? See select.h.
bool fuses_backward(const Problem& problem);

// What select.h would do on a GPU for tensors aligned to 16 bytes.
Plan plan_for(const Problem& problem, const Gpu& gpu);

}  // namespace cnnkernels::depthwise_separable_conv
