// dx = the error convolved with the filter turned by 180 degrees. Input pixel h met filter row r at output
// row p with p stride = h + pad - r dilation. So which rows r it met depends on h modulo the stride alone:
// pixels that agree form a phase, and within a phase the pixels' windows of the error are those of an
// ordinary convolution of stride 1. No zero is ever multiplied, and each phase writes its own pixels. A phase
// without taps has a reduction of length 0 and writes zeros.
#include "conv2d.h"
#include "directions.h"
#include "grouped.h"
#include "hopper_directions.h"
#include "phases.h"
#include "views.h"

namespace cnnkernels::conv2d {

std::vector<Gemm> backward_input_gemms(const Problem& problem, const void* grad_output, const void* weight,
                                       void* grad_input) {
  const Conv2dGeometry& g = problem.geometry;
  const std::int64_t channels = g.c / g.groups, filters = g.k / g.groups;
  const Strides dx = strides(problem.layout, g.c, g.h, g.w), dy = strides(problem.layout, g.k, g.p, g.q);
  const Strides w = strides(problem.layout, channels, g.r, g.s);
  std::vector<Gemm> gemms;
  for (std::int64_t a = 0; a < std::min(g.stride_h, g.h); ++a) {
    const PhaseAxis h = phase_axis(a, g.h, g.r, g.stride_h, g.pad_h, g.dilation_h);
    for (std::int64_t b = 0; b < std::min(g.stride_w, g.w); ++b) {
      const PhaseAxis v = phase_axis(b, g.w, g.s, g.stride_w, g.pad_w, g.dilation_w);
      const bool empty = h.taps == 0 || v.taps == 0;
      const Windows view = windows(problem.layout, dy, g.n, empty ? 0 : filters, g.p, g.q, h.origin, v.origin,
                                   {h.pixels, v.pixels, 1, 1}, {h.taps, v.taps, h.step, v.step});
      Gemm gemm;
      gemm.a = {grad_output, view.origin, view.height, view.width, filters * dy.c, view.position, view.tap};
      gemm.b.data = weight;
      gemm.b.origin.offset = h.first_tap * w.h + v.first_tap * w.w;
      gemm.b.group_stride = filters * w.n;
      gemm.b.side = Axis{{channels, w.c}};
      gemm.b.depth = tap_axis(problem.layout, {empty ? 0 : filters, w.n}, {v.taps, v.tap_step * w.w},
                              {h.taps, h.tap_step * w.h});
      gemm.c.data = static_cast<std::byte*>(grad_input) + (a * dx.h + b * dx.w) * element_of(problem).bytes();
      gemm.c.group_stride = channels * dx.c;
      gemm.c.row = Axis{{v.pixels, g.stride_w * dx.w}, {h.pixels, g.stride_h * dx.h}, {g.n, dx.n}};
      gemm.c.column = Axis{{channels, dx.c}};
      gemm.groups = g.groups;
      gemm.image_elements = g.n * g.k * g.p * g.q;
      gemms.push_back(gemm);
    }
  }
  return gemms;
}

void backward_input(const Problem& problem, const void* grad_output, const void* weight, void* grad_input,
                    std::uintptr_t stream, const Plan* plan) {
  constexpr Direction kThis = Direction::backward_input;
  if (const auto grouped = grouped::plan_for(kThis, problem, plan, {grad_output, grad_input}))
    return grouped::sweep_all(kThis, problem, *grouped, grad_output, weight, {}, grad_input, stream);
  if (const auto hopper =
          hopper::plan_for(Direction::backward_input, problem, plan, {grad_output, weight, grad_input}))
    return hopper::backward_input(problem, *hopper, grad_output, weight, grad_input, stream);
  for (const Gemm& gemm : backward_input_gemms(problem, grad_output, weight, grad_input))
    launch_gemm(element_of(problem), gemm, decide(Direction::backward_input, problem, gemm, plan), nullptr,
                stream);
}

}  // namespace cnnkernels::conv2d
