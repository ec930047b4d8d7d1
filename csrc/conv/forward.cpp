// y = w * x: rows are output pixels, columns output channels, the reduction runs over channels and taps.
#include "conv.h"
#include "directions.h"
#include "grouped/grouped.h"
#include "sm90/directions.h"
#include "packing/packing.h"
#include "views.h"

namespace cnnkernels::conv {

Gemm forward_gemm(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
                  void* output) {
  const ConvGeometry& g = problem.geometry;
  const std::int64_t channels = g.c / g.groups, filters = g.k / g.groups;
  const Strides x = strides(problem.layout, g.c, g.h, g.w), y = strides(problem.layout, g.k, g.p, g.q);
  const Strides w = strides(problem.layout, channels, g.r, g.s);
  const Windows view = windows(problem.layout, x, g.n, channels, g.h, g.w, -g.pad_h, -g.pad_w,
                               {g.p, g.q, g.stride_h, g.stride_w}, {g.r, g.s, g.dilation_h, g.dilation_w});
  Gemm gemm;
  gemm.a = {view.origin, input, view.height, view.width, channels * x.c, view.position, view.tap};
  add_border(problem, gemm.a);
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

void run_forward(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
                 void* output, std::uintptr_t stream, const Plan* plan) {
  const void* residual = epilogue.residual;
  if (const auto grouped = grouped::plan_for(Direction::forward, problem, plan, {input, output, residual}))
    return grouped::sweep_all(Direction::forward, problem, *grouped, input, weight, epilogue, output, stream);
  if (const auto on_sm90 =
          sm90::plan_for(Direction::forward, problem, plan, {input, weight, output, residual}))
    return sm90::forward(problem, *on_sm90, input, weight, epilogue, output, stream);
  const Gemm gemm = forward_gemm(problem, input, weight, epilogue, output);
  launch_gemm(element_of(problem), gemm, decide(Direction::forward, problem, gemm, plan), nullptr, stream);
}

namespace {

// Slice by slice: the operands are packed, the sums made, and the result copied where it is not stored in
// place.
void forward_packed(const Problem& problem, const Packed& packed, const void* input, const void* weight,
                    const Epilogue& epilogue, void* output, void* workspace, std::uintptr_t stream,
                    const Plan* asked) {
  if (packed.end > 0) check_workspace(workspace);
  const ConvGeometry& g = problem.geometry;
  const bool unpacked = packed.result == ResultBy::unpacked;
  const std::optional<Plan> inside = plan_inside(asked);
  const Plan* plan = inside ? &*inside : nullptr;
  const std::int64_t bytes = element_of(problem).bytes();
  void* w = packed.second ? ahead(workspace, packed.at_second) : const_cast<void*>(weight);

  for (std::int64_t first = 0; first < g.n; first += packed.images) {
    const Problem part = slice_of(problem, packed, first), inner = slice_of(packed.problem, packed, first);
    const void* from = ahead(input, first * g.c * g.h * g.w * bytes);
    const std::int64_t outputs = first * g.k * g.p * g.q * bytes;
    void* to = ahead(output, outputs);
    const void* x = from;
    Epilogue what = epilogue;
    what.residual = ahead(epilogue.residual, outputs);
    Copies copies;
    if (packed.first) {
      x = ahead(workspace, packed.at_first);
      copies.add(pack_input(part, packed.how, from, ahead(workspace, packed.at_first)));
    }
    if (packed.second && first == 0) copies.add(pack_weight(problem, packed.how, weight, w));
    if (unpacked) what = pack_epilogue(Direction::forward, part, packed, what, first == 0, workspace, copies);
    launch_copies(copies, stream);
    if (packed.result == ResultBy::strided) {
      Gemm gemm = forward_gemm(inner, x, w, what, nullptr);
      gemm.c = forward_gemm(part, nullptr, nullptr, {}, to).c;
      launch_gemm(element_of(problem), gemm, decide(Direction::forward, inner, gemm, plan), nullptr, stream);
    } else {
      void* y = unpacked ? ahead(workspace, packed.at_result) : to;
      run_forward(inner, x, w, what, y, stream, plan);
      if (!unpacked) continue;
      Copies back;
      back.add(unpack_image(problem.layout, part.geometry.n, g.groups, g.k / g.groups, g.p, g.q, y, to));
      launch_copies(back, stream);
    }
  }
}

}  // namespace

void forward(const Problem& problem, const void* input, const void* weight, const Epilogue& epilogue,
             void* output, void* workspace, std::uintptr_t stream, const Plan* plan) {
  const Tensors tensors{input, weight, output, epilogue.residual};
  if (const auto packed = packed_for(Direction::forward, problem, plan, tensors, this_gpu()))
    return forward_packed(problem, *packed, input, weight, epilogue, output, workspace, stream, plan);
  run_forward(problem, input, weight, epilogue, output, stream, plan);
}

}  // namespace cnnkernels::conv
