// dw = the input correlated with the error: rows are the filter's taps and channels, columns the filters, and
// the reduction runs over every output pixel of the batch. That is long where the output is small, so it is
// cut into parts, each summed by blocks of its own; the parts' sums are added in order, so the bits never
// change.
#include "../gemm/add_parts.h"
#include "directions.h"
#include "grouped/weight.h"
#include "sm90/directions.h"
#include "packing/packing.h"
#include "views.h"

namespace cnnkernels::conv {

namespace {

std::int64_t weights(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  return g.k * (g.c / g.groups) * g.r * g.s;
}

}  // namespace

Gemm backward_weight_gemm(const Problem& problem, const void* grad_output, const void* input,
                          void* grad_weight) {
  const ConvGeometry& g = problem.geometry;
  const std::int64_t channels = g.c / g.groups, filters = g.k / g.groups;
  const Strides x = strides(problem.layout, g.c, g.h, g.w), dy = strides(problem.layout, g.k, g.p, g.q);
  const Strides dw = strides(problem.layout, channels, g.r, g.s);
  const Windows view = windows(problem.layout, x, g.n, channels, g.h, g.w, -g.pad_h, -g.pad_w,
                               {g.p, g.q, g.stride_h, g.stride_w}, {g.r, g.s, g.dilation_h, g.dilation_w});
  Gemm gemm;
  gemm.a = {view.origin, input, view.height, view.width, channels * x.c, view.tap, view.position};
  add_border(problem, gemm.a);
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

std::size_t bytes_of_parts(const Problem& problem, const Plan* asked) {
  const auto bytes = [&](int splits) {
    const std::int64_t all = splits == 1 ? 0 : splits * weights(problem);
    return static_cast<std::size_t>(all * element_of(problem).accumulator_bytes());
  };
  auto whole = grouped::plan_for(Direction::backward_weight, problem, asked);
  if (!whole) whole = sm90::plan_for(Direction::backward_weight, problem, asked);
  if (whole && asked != nullptr && asked->binding) return bytes(whole->splits);
  // Tensors that turn out not to be aligned go to another engine, whose parts may be more.
  const Gemm gemm = backward_weight_gemm(problem, nullptr, nullptr, nullptr);
  const int splits = decide(Direction::backward_weight, problem, gemm, asked).splits;
  return bytes(whole ? std::max(splits, whole->splits) : splits);
}

void run_backward_weight(const Problem& problem, const void* grad_output, const void* input,
                         void* grad_weight, void* workspace, std::uintptr_t stream, const Plan* asked) {
  if (const auto grouped =
          grouped::plan_for(Direction::backward_weight, problem, asked, {grad_output, input}))
    return grouped::backward_weight(problem, *grouped, grad_output, input, grad_weight, workspace, stream);
  if (const auto on_sm90 = sm90::plan_for(Direction::backward_weight, problem, asked,
                                          {grad_output, input, grad_weight, workspace}))
    return sm90::backward_weight(problem, *on_sm90, grad_output, input, grad_weight, workspace, stream);
  const Gemm gemm = backward_weight_gemm(problem, grad_output, input, grad_weight);
  const Plan plan = decide(Direction::backward_weight, problem, gemm, asked);
  if (plan.splits == 1) return launch_gemm(element_of(problem), gemm, plan, nullptr, stream);
  launch_gemm(element_of(problem), gemm, plan, workspace, stream);
  gemm::add_parts(problem.dtype, workspace, grad_weight, weights(problem), plan.splits, stream);
}

namespace {

// A batch in more than one slice is summed by mma.sync, each slice in parts of its own; all parts are added
// in order.
void backward_weight_packed(const Problem& problem, const Packed& packed, const void* grad_output,
                            const void* input, void* grad_weight, void* workspace, std::uintptr_t stream,
                            const Plan* asked) {
  if (packed.end > 0) check_workspace(workspace);
  const ConvGeometry& g = problem.geometry;
  const bool unpacked = packed.result == ResultBy::unpacked;
  std::optional<Plan> inside = plan_inside(asked);
  if (inside && packed.slices > 1) inside->splits = packed.splits;
  const Plan* plan = inside ? &*inside : nullptr;
  const Element element = element_of(problem);
  const std::int64_t bytes = element.bytes(), outputs = weights(packed.problem);
  void* dw = unpacked ? ahead(workspace, packed.at_result) : grad_weight;
  void* sums = ahead(workspace, packed.end);
  const int parts = packed.slices * packed.splits;

  for (int slice = 0; slice < packed.slices; ++slice) {
    const std::int64_t first = slice * packed.images;
    const Problem part = slice_of(problem, packed, first), inner = slice_of(packed.problem, packed, first);
    const void* of_output = ahead(grad_output, first * g.k * g.p * g.q * bytes);
    const void* of_input = ahead(input, first * g.c * g.h * g.w * bytes);
    void* dy = packed.first ? ahead(workspace, packed.at_first) : const_cast<void*>(of_output);
    void* x = packed.second ? ahead(workspace, packed.at_second) : const_cast<void*>(of_input);
    Copies copies;
    if (packed.first) copies.add(pack_output(part, of_output, dy));
    if (packed.second) copies.add(pack_input(part, packed.how, of_input, x));
    launch_copies(copies, stream);
    if (packed.slices == 1) {
      run_backward_weight(inner, dy, x, dw, sums, stream, plan);
    } else {
      const Gemm gemm = backward_weight_gemm(inner, dy, x, dw);
      const Plan of_slice =
          plan != nullptr
              ? decide(Direction::backward_weight, inner, gemm, plan)
              : select(Direction::backward_weight, gemm, element, this_gpu(), packed.splits).plan();
      void* to = ahead(sums, slice * packed.splits * outputs * element.accumulator_bytes());
      launch_gemm(element, gemm, of_slice, to, stream);
    }
  }
  if (packed.slices > 1) gemm::add_parts(problem.dtype, sums, dw, outputs, parts, stream);
  if (!unpacked) return;
  Copies back;
  back.add(unpack_filter(problem.layout, g.groups, g.k / g.groups, g.c / g.groups, g.r, g.s,
                         packed.how == Packing::rows, dw, grad_weight));
  launch_copies(back, stream);
}

}  // namespace

void backward_weight(const Problem& problem, const void* grad_output, const void* input, void* grad_weight,
                     void* workspace, std::uintptr_t stream, const Plan* plan) {
  const Tensors tensors{grad_output, input, grad_weight};
  if (const auto packed = packed_for(Direction::backward_weight, problem, plan, tensors, this_gpu()))
    return backward_weight_packed(problem, *packed, grad_output, input, grad_weight, workspace, stream, plan);
  run_backward_weight(problem, grad_output, input, grad_weight, workspace, stream, plan);
}

}  // namespace cnnkernels::conv
