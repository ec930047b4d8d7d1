// dx[n, c, h, w] = the sum over c's filters k and their taps of dy[n, k, p, q] w[k, r, s] where
// h = p stride_h - pad_h + r dilation_h and w = q stride_w - pad_w + s dilation_w: a gather, so that each
// element is written once. Along an axis of stride 1 it is a forward pass over the error with the filter
// walked backwards:
//   p = h + pad - r dilation = h - ((R - 1) dilation - pad) + t dilation    with t = R - 1 - r
// Along any other, taps reach only the h for which stride divides h + pad - r dilation.
#include "../common/missing_windows.h"
#include "correlate.h"
#include "select.h"

namespace cnnkernels::depthwise_conv {

namespace {

// `step` and `origin` are the filter's along this axis.
Axis backward(Axis axis, Index& step, std::int64_t& origin) {
  if (axis.stride > 1) return transposed(axis);
  std::swap(axis.source_size, axis.result_size);
  axis.pad = (axis.taps - 1) * axis.dilation - axis.pad;
  origin += std::int64_t(axis.taps - 1) * step;
  step = -step;
  return axis;
}

}  // namespace

Correlation backward_input_correlation(const Problem& problem, bool along_row) {
  const ConvGeometry& g = problem.geometry;
  Correlation c{};
  c.taps = filter_taps(g, along_row);
  c.a = backward(along_row ? columns_axis(g) : rows_axis(g), c.taps.step_a, c.taps.origin);
  c.b = backward(along_row ? rows_axis(g) : columns_axis(g), c.taps.step_b, c.taps.origin);
  c.source = view(problem.layout, along_row, g.k, g.p, g.q);
  c.result = view(problem.layout, along_row, g.c, g.h, g.w);
  c.channels_last = problem.layout == Layout::nhwc;
  c.images = static_cast<Index>(g.n);
  c.channels = FastDivide(g.c);
  c.terms = static_cast<Index>(g.k / g.c);
  return c;
}

void backward_input(const Problem& problem, const void* grad_output, const void* weight, const void* bias,
                    void* grad_input, std::uintptr_t stream, const Plan* plan) {
  correlate(Direction::backward_input, problem, {grad_output, weight, bias, grad_input}, stream, plan);
  leave_out_missing_windows(problem.geometry, problem.layout, problem.dtype, grad_output, weight,
                            Epilogue{.bias = bias}, grad_input, stream);
}

}  // namespace cnnkernels::depthwise_conv
