// y = w * x: rows are output pixels, columns output channels, the reduction runs over channels and taps.
#include "conv2d.h"
#include "directions.h"
#include "grouped.h"
#include "hopper_directions.h"
#include "views.h"

namespace cnnkernels::conv2d {

Gemm forward_gemm(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
                  void* output) {
  const Conv2dGeometry& g = problem.geometry;
  const std::int64_t channels = g.c / g.groups, filters = g.k / g.groups;
  const Strides x = strides(problem.layout, g.c, g.h, g.w), y = strides(problem.layout, g.k, g.p, g.q);
  const Strides w = strides(problem.layout, channels, g.r, g.s);
  const Windows view = windows(problem.layout, x, g.n, channels, g.h, g.w, -g.pad_h, -g.pad_w,
                               {g.p, g.q, g.stride_h, g.stride_w}, {g.r, g.s, g.dilation_h, g.dilation_w});
  Gemm gemm;
  gemm.a = {input, view.origin, view.height, view.width, channels * x.c, view.position, view.tap};
  gemm.b.data = weight;
  gemm.b.group_stride = filters * w.n;
  gemm.b.side = Axis{{filters, w.n}};
  gemm.b.depth = tap_axis(problem.layout, {channels, w.c}, {g.s, w.w}, {g.r, w.h});
  gemm.c = {output, filters * y.c, Axis{{g.q, y.w}, {g.p, y.h}, {g.n, y.n}}, Axis{{filters, y.c}}};
  gemm.epilogue = epilogue;
  gemm.groups = g.groups;
  gemm.image_elements = g.n * g.c * g.h * g.w;
  return gemm;
}

void forward(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
             void* output, std::uintptr_t stream, const Plan* plan) {
  const void* residual = epilogue.residual;
  if (const auto grouped = grouped::plan_for(Direction::forward, problem, plan, {input, output, residual}))
    return grouped::sweep_all(Direction::forward, problem, *grouped, input, weight, epilogue, output, stream);
  if (const auto hopper =
          hopper::plan_for(Direction::forward, problem, plan, {input, weight, output, residual}))
    return hopper::forward(problem, *hopper, input, weight, epilogue, output, stream);
  const Gemm gemm = forward_gemm(problem, input, weight, epilogue, output);
  launch_gemm(element_of(problem), gemm, decide(Direction::forward, problem, gemm, plan), nullptr, stream);
}

}  // namespace cnnkernels::conv2d
