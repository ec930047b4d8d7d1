// dw = the input correlated with the error: rows are the filter's taps and channels, columns the filters, and
// the reduction runs over every output pixel of the batch. That is long where the output is small, so it is
// cut into parts, each summed by blocks of its own; the parts' sums are added in order, so the bits never
// change.
#include "../common/add_parts.h"
#include "directions.h"
#include "hopper_directions.h"
#include "views.h"

namespace cnnkernels::conv2d {

namespace {

std::int64_t weights(const Problem& problem) {
  const Conv2dGeometry& g = problem.geometry;
  return g.k * (g.c / g.groups) * g.r * g.s;
}

}  // namespace

Gemm backward_weight_gemm(const Problem& problem, const void* grad_output, const void* input,
                          void* grad_weight) {
  const Conv2dGeometry& g = problem.geometry;
  const std::int64_t channels = g.c / g.groups, filters = g.k / g.groups;
  const Strides x = strides(problem.layout, g.c, g.h, g.w), dy = strides(problem.layout, g.k, g.p, g.q);
  const Strides dw = strides(problem.layout, channels, g.r, g.s);
  const Windows view = windows(problem.layout, x, g.n, channels, g.h, g.w, -g.pad_h, -g.pad_w,
                               {g.p, g.q, g.stride_h, g.stride_w}, {g.r, g.s, g.dilation_h, g.dilation_w});
  Gemm gemm;
  gemm.a = {input, view.origin, view.height, view.width, channels * x.c, view.tap, view.position};
  gemm.b.data = grad_output;
  gemm.b.group_stride = filters * dy.c;
  gemm.b.side = Axis{{filters, dy.c}};
  gemm.b.depth = Axis{{g.q, dy.w}, {g.p, dy.h}, {g.n, dy.n}};
  gemm.c = {grad_weight, filters * dw.n, tap_axis(problem.layout, {channels, dw.c}, {g.s, dw.w}, {g.r, dw.h}),
            Axis{{filters, dw.n}}};
  gemm.groups = g.groups;
  gemm.image_elements = g.n * g.c * g.h * g.w;
  return gemm;
}

std::size_t backward_weight_workspace(const Problem& problem, const Plan* asked) {
  const auto bytes = [&](int splits) {
    const std::int64_t all = splits == 1 ? 0 : splits * weights(problem);
    return static_cast<std::size_t>(all * element_of(problem).accumulator_bytes());
  };
  const auto hopper = hopper::plan_for(Direction::backward_weight, problem, asked);
  if (hopper && asked != nullptr && asked->binding) return bytes(hopper->splits);
  // Tensors that turn out not to be aligned go to the other engine, whose parts may be more.
  const Gemm gemm = backward_weight_gemm(problem, nullptr, nullptr, nullptr);
  const int splits = decide(Direction::backward_weight, problem, gemm, asked).splits;
  return bytes(hopper ? std::max(splits, hopper->splits) : splits);
}

void backward_weight(const Problem& problem, const void* grad_output, const void* input, void* grad_weight,
                     void* workspace, std::uintptr_t stream, const Plan* asked) {
  if (const auto hopper = hopper::plan_for(Direction::backward_weight, problem, asked,
                                           {grad_output, input, grad_weight, workspace}))
    return hopper::backward_weight(problem, *hopper, grad_output, input, grad_weight, workspace, stream);
  const Gemm gemm = backward_weight_gemm(problem, grad_output, input, grad_weight);
  const Plan plan = decide(Direction::backward_weight, problem, gemm, asked);
  if (plan.splits == 1) return launch_gemm(element_of(problem), gemm, plan, nullptr, stream);
  launch_gemm(element_of(problem), gemm, plan, workspace, stream);
  add_parts(problem.dtype, workspace, grad_weight, weights(problem), plan.splits, stream);
}

}  // namespace cnnkernels::conv2d
