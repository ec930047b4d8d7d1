// The three directions on the kernels of grouped.h and grouped/weight.h, and when they serve.
#include "../../common/giving_way.h"
#include "../../gemm/add_parts.h"
#include "select.h"

namespace cnnkernels::conv::grouped {

namespace {

Steps steps_of(std::int64_t c, std::int64_t h, std::int64_t w) { return {c * h * w, w * c, c}; }

Index narrow_index(std::int64_t value) { return static_cast<Index>(value); }

SweepAxis forward_axis(std::int64_t size, std::int64_t taps, std::int64_t results, std::int64_t stride,
                       std::int64_t pad, std::int64_t dilation) {
  return {narrow_index(size),
          narrow_index(results),
          narrow_index(taps),
          narrow_index(-pad),
          narrow_index(stride),
          narrow_index(dilation),
          0,
          1};
}

// A phase's taps from the last to the first, so that they go ahead in the error.
SweepAxis phase_sweep(const PhaseAxis& phase, std::int64_t size) {
  const std::int64_t behind = std::max<std::int64_t>(phase.taps - 1, 0) * -phase.step;
  return {narrow_index(size),
          narrow_index(phase.pixels),
          narrow_index(phase.taps),
          narrow_index(phase.origin - behind),
          1,
          narrow_index(-phase.step),
          narrow_index(phase.first_tap),
          narrow_index(phase.tap_step)};
}

// Why tensors where they lie, with what the problem asks, cannot be served.
std::optional<std::string> why_not(Direction direction, const Problem& problem,
                                   std::initializer_list<const void*> pointers) {
  if (auto why = cannot_serve(direction, problem)) return why;
  for (const void* pointer : pointers) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes != 0)
      return "it copies tensors that begin at a multiple of 16 bytes";
  }
  return std::nullopt;
}

}  // namespace

std::vector<Sweep> sweeps(Direction direction, const Problem& problem, const void* image, const void* filter,
                          void* result) {
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const std::int64_t channels = g.c / g.groups, filters = g.k / g.groups;
  const Steps x = steps_of(g.c, g.h, g.w), y = steps_of(g.k, g.p, g.q);
  Sweep sweep{};
  sweep.image = image;
  sweep.filter = filter;
  sweep.filter_k = FastDivide(filters);
  sweep.filter_r = FastDivide(g.r);
  sweep.filter_s = FastDivide(g.s);
  sweep.filter_c = FastDivide(channels);
  sweep.images = narrow_index(g.n);
  sweep.groups = narrow_index(g.groups);
  sweep.turned = direction == Direction::backward_input;
  sweep.channels = narrow_index(sweep.turned ? filters : channels);
  sweep.filters = narrow_index(sweep.turned ? channels : filters);
  sweep.by_runs = direction == Direction::backward_weight || groups_of_chunk(sweep.channels, element) == 1;
  if (!sweep.turned) {
    sweep.result = result;
    sweep.h = forward_axis(g.h, g.r, g.p, g.stride_h, g.pad_h, g.dilation_h);
    sweep.w = forward_axis(g.w, g.s, g.q, g.stride_w, g.pad_w, g.dilation_w);
    sweep.image_steps = x;
    sweep.result_steps = y;
    return {sweep};
  }
  std::vector<Sweep> phases;
  sweep.image_steps = y;
  sweep.result_steps = {x.n, x.h * g.stride_h, x.w * g.stride_w};
  for (std::int64_t a = 0; a < std::min(g.stride_h, g.h); ++a) {
    const PhaseAxis h = phase_axis(a, g.h, g.r, g.stride_h, g.pad_h, g.dilation_h);
    for (std::int64_t b = 0; b < std::min(g.stride_w, g.w); ++b) {
      const PhaseAxis w = phase_axis(b, g.w, g.s, g.stride_w, g.pad_w, g.dilation_w);
      sweep.h = phase_sweep(h, g.p);
      sweep.w = phase_sweep(w, g.q);
      if (h.taps == 0 || w.taps == 0) sweep.h.taps = sweep.w.taps = 0;
      sweep.result = static_cast<std::byte*>(result) + (a * x.h + b * x.w) * element.bytes();
      phases.push_back(sweep);
    }
  }
  return phases;
}

std::optional<Plan> plan_for(Direction direction, const Problem& problem, const Plan* asked,
                             std::initializer_list<const void*> pointers) {
  if (asked != nullptr && asked->engine != Engine::grouped) return std::nullopt;
  const auto why = why_not(direction, problem, pointers);
  const bool binding = asked != nullptr && asked->binding;
  const auto refuse = [&](const std::string& reason) {
    throw std::invalid_argument("conv2d: the plan '" + describe(*asked) +
                                "' cannot serve this problem: " + reason);
  };
  if (binding) {
    if (asked->tile < 0 || asked->tile >= kGroupedTileCount)
      throw std::invalid_argument("conv2d: there is no such tile");
    if (asked->splits < 1) refuse("splits must be at least 1");
    if (asked->splits > 1 && direction != Direction::backward_weight)
      refuse("only backward_weight splits its reduction");
    if (why) refuse(*why);
  }
  if (why) return std::nullopt;
  if (!binding && gave_way(Yielding::conv_grouped, static_cast<int>(direction), problem.dtype))
    return std::nullopt;
  if (asked != nullptr) {
    const char* reason = cannot_serve(direction, problem, tile_of(*asked));
    if (binding && reason != nullptr) refuse(reason);
    if (reason == nullptr) return *asked;
  }
  const std::vector<Candidate> found = candidates(direction, problem, this_gpu());
  const Candidate& best = found[cheapest(found)];
  return best.why_not == nullptr ? std::optional(best.plan) : std::nullopt;
}

void sweep_all(Direction direction, const Problem& problem, const Plan& plan, const void* image,
               const void* filter, const Epilogue& epilogue, void* result, std::uintptr_t stream) {
  const bool follows = epilogue.residual != nullptr || epilogue.activation != Activation::none;
  const Element element{problem.dtype, problem.tf32};
  const int staged = follows ? kStagedBytes : element.bytes();
  const Gpu& gpu = this_gpu();
  for (const Sweep& sweep : sweeps(direction, problem, image, filter, result)) {
    Patch patch = patch_for(sweep, problem, tile_of(plan), staged);
    const std::int64_t blocks =
        plan.blocks > 0
            ? plan.blocks
            : held_blocks(patch.bytes, groups_of_chunk(sweep.channels, element), gpu) * gpu.processors;
    const std::int64_t workers = std::max<std::int64_t>(blocks / patch.bundles.divisor, 1);
    patch.workers = static_cast<Index>(std::min<std::int64_t>(workers, patch.count));
    Epilogue of_sweep = epilogue;  // a phase's residual begins where its result does
    if (epilogue.residual != nullptr)
      of_sweep.residual = static_cast<const std::byte*>(epilogue.residual) +
                          (static_cast<std::byte*>(sweep.result) - static_cast<std::byte*>(result));
    if (problem.dtype == DType::float16)
      launch_sweep<float16>(sweep, patch, of_sweep, stream);
    else
      launch_sweep<bfloat16>(sweep, patch, of_sweep, stream);
  }
}

void backward_weight(const Problem& problem, const Plan& plan, const void* grad_output, const void* input,
                     void* grad_weight, void* workspace, std::uintptr_t stream) {
  const Sweep sweep = sweeps(Direction::backward_weight, problem, input, nullptr, nullptr).front();
  const Patch patch = patch_for(sweep, problem, tile_of(plan), kStagedBytes);
  Gradient gradient = gradient_of(patch, problem, plan.splits);
  gradient.error = grad_output;
  gradient.in_parts = plan.splits > 1;
  gradient.sums = gradient.in_parts ? workspace : grad_weight;
  if (problem.dtype == DType::float16)
    launch_gradient<float16>(sweep, patch, gradient, stream);
  else
    launch_gradient<bfloat16>(sweep, patch, gradient, stream);
  if (gradient.in_parts) {
    const ConvGeometry& g = problem.geometry;
    gemm::add_parts(problem.dtype, workspace, grad_weight, g.k * (g.c / g.groups) * g.r * g.s, plan.splits,
                    stream);
  }
}

}  // namespace cnnkernels::conv::grouped
