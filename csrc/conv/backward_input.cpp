// dx = the error convolved with the filter turned by 180 degrees. Input pixel h met filter row r at output
// row p with p stride = h + pad - r dilation. So which rows r it met depends on h modulo the stride alone:
// pixels that agree form a phase, and within a phase the pixels' windows of the error are those of an
// ordinary convolution of stride 1. No zero is ever multiplied, and each phase writes its own pixels. A phase
// without taps has a reduction of length 0 and writes zeros, or what the epilogue makes of them.
#include "../common/missing_windows.h"
#include "conv.h"
#include "directions.h"
#include "grouped/grouped.h"
#include "sm90/directions.h"
#include "packing/packing.h"
#include "phases.h"
#include "views.h"

namespace cnnkernels::conv {

std::vector<Gemm> backward_input_gemms(const Problem& problem, const void* grad_output, const void* weight,
                                       const Epilogue& epilogue, void* grad_input) {
  const ConvGeometry& g = problem.geometry;
  if (g.padding_mode != PaddingMode::zeros)
    throw std::invalid_argument(
        "conv2d: backward_input's padding is of zeros; a border's gradient is folded back");
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
      gemm.a = {view.origin, grad_output, view.height, view.width, filters * dy.c, view.position, view.tap};
      gemm.b.data = weight;
      gemm.b.origin.offset = h.first_tap * w.h + v.first_tap * w.w;
      gemm.b.group_stride = filters * w.n;
      gemm.b.side = Axis{{channels, w.c}};
      gemm.b.depth = tap_axis(problem.layout, {empty ? 0 : filters, w.n}, {v.taps, v.tap_step * w.w},
                              {h.taps, h.tap_step * w.h});
      const std::int64_t first = (a * dx.h + b * dx.w) * element_of(problem).bytes();
      gemm.c.data = static_cast<std::byte*>(grad_input) + first;
      gemm.c.group_stride = channels * dx.c;
      gemm.c.row = Axis{{v.pixels, g.stride_w * dx.w}, {h.pixels, g.stride_h * dx.h}, {g.n, dx.n}};
      gemm.c.column = Axis{{channels, dx.c}};
      gemm.epilogue = epilogue;
      gemm.epilogue.residual = ahead(epilogue.residual, first);
      gemm.groups = g.groups;
      gemm.image_elements = g.n * g.k * g.p * g.q;
      gemms.push_back(gemm);
    }
  }
  return gemms;
}

void run_backward_input(const Problem& problem, const void* grad_output, const void* weight,
                        const Epilogue& epilogue, void* grad_input, std::uintptr_t stream, const Plan* plan) {
  constexpr Direction kThis = Direction::backward_input;
  const void* residual = epilogue.residual;
  if (const auto grouped = grouped::plan_for(kThis, problem, plan, {grad_output, grad_input, residual}))
    return grouped::sweep_all(kThis, problem, *grouped, grad_output, weight, epilogue, grad_input, stream);
  if (const auto on_sm90 = sm90::plan_for(kThis, problem, plan, {grad_output, weight, grad_input, residual}))
    return sm90::backward_input(problem, *on_sm90, grad_output, weight, epilogue, grad_input, stream);
  for (const Gemm& gemm : backward_input_gemms(problem, grad_output, weight, epilogue, grad_input))
    launch_gemm(element_of(problem), gemm, decide(kThis, problem, gemm, plan), nullptr, stream);
}

namespace {

void backward_input_packed(const Problem& problem, const Packed& packed, const void* grad_output,
                           const void* weight, const Epilogue& epilogue, void* grad_input, void* workspace,
                           std::uintptr_t stream, const Plan* asked) {
  if (packed.end > 0) check_workspace(workspace);
  const ConvGeometry& g = problem.geometry;
  const bool unpacked = packed.result == ResultBy::unpacked;
  const std::optional<Plan> inside = plan_inside(asked);
  const Plan* plan = inside ? &*inside : nullptr;
  const std::int64_t bytes = element_of(problem).bytes();
  void* w = packed.second ? ahead(workspace, packed.at_second) : const_cast<void*>(weight);

  for (std::int64_t first = 0; first < g.n; first += packed.images) {
    const Problem part = slice_of(problem, packed, first), inner = slice_of(packed.problem, packed, first);
    const void* from = ahead(grad_output, first * g.k * g.p * g.q * bytes);
    const std::int64_t inputs = first * g.c * g.h * g.w * bytes;
    void* to = ahead(grad_input, inputs);
    void* dy = packed.first ? ahead(workspace, packed.at_first) : const_cast<void*>(from);
    Copies copies;
    if (packed.first) copies.add(pack_output(part, from, dy));
    if (packed.second && first == 0) copies.add(pack_weight(problem, packed.how, weight, w));
    Epilogue what = epilogue;
    what.residual = ahead(epilogue.residual, inputs);
    if (unpacked)
      what = pack_epilogue(Direction::backward_input, part, packed, what, first == 0, workspace, copies);
    launch_copies(copies, stream);
    if (packed.result == ResultBy::strided) {
      std::vector<Gemm> phases = backward_input_gemms(inner, dy, w, {}, nullptr);
      const std::vector<Gemm> plain = backward_input_gemms(part, nullptr, nullptr, what, to);
      for (std::size_t i = 0; i < phases.size(); ++i) {
        phases[i].c = plain[i].c;
        phases[i].epilogue = plain[i].epilogue;
        launch_gemm(element_of(problem), phases[i], decide(Direction::backward_input, inner, phases[i], plan),
                    nullptr, stream);
      }
    } else {
      void* dx = unpacked ? ahead(workspace, packed.at_result) : to;
      run_backward_input(inner, dy, w, what, dx, stream, plan);
      if (!unpacked) continue;
      Copies back;
      back.add(unpack_image(problem.layout, part.geometry.n, g.groups, g.c / g.groups, g.h, g.w, dx, to));
      launch_copies(back, stream);
    }
  }
}

}  // namespace

void backward_input(const Problem& problem, const void* grad_output, const void* weight,
                    const Epilogue& epilogue, void* grad_input, void* workspace, std::uintptr_t stream,
                    const Plan* plan) {
  const Tensors tensors{grad_output, weight, grad_input, epilogue.residual};
  if (const auto packed = packed_for(Direction::backward_input, problem, plan, tensors, this_gpu())) {
    backward_input_packed(problem, *packed, grad_output, weight, epilogue, grad_input, workspace, stream,
                          plan);
  } else {
    run_backward_input(problem, grad_output, weight, epilogue, grad_input, stream, plan);
  }
  leave_out_missing_windows(problem.geometry, problem.layout, problem.dtype, grad_output, weight, epilogue,
                            grad_input, stream);
}

}  // namespace cnnkernels::conv
