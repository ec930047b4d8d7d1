// dw = the input correlated with the error: blocks sum parts of it, then the parts are added in order.
#include "../gemm/add_parts.h"
#include "select.h"

namespace cnnkernels::depthwise_conv {

WeightGradient weight_gradient(const Problem& problem, bool along_row) {
  const ConvGeometry& g = problem.geometry;
  WeightGradient w{};
  w.a = along_row ? columns_axis(g) : rows_axis(g);
  w.b = along_row ? rows_axis(g) : columns_axis(g);
  w.input = view(problem.layout, along_row, g.c, g.h, g.w);
  w.grad_output = view(problem.layout, along_row, g.k, g.p, g.q);
  w.taps = filter_taps(g, along_row);
  w.channels_last = problem.layout == Layout::nhwc;
  w.images = static_cast<Index>(g.n);
  w.channels = static_cast<Index>(g.k);
  w.multiplier = FastDivide(g.k / g.c);
  w.strips = FastDivide(ceil_div(w.a.result_size, weight_strip(along_row ? 2 : 1)));
  w.lines = FastDivide(w.b.result_size);
  return w;
}

std::size_t backward_weight_workspace(const Problem& problem, const Plan* asked) {
  // Pointers that are not aligned lead to another plan, which may have more parts.
  std::int64_t splits = 0;
  for (const bool may_vectorize : {false, true}) {
    if (asked != nullptr && asked->vector > 1 && !may_vectorize) continue;
    const int here = decide(Direction::backward_weight, problem, may_vectorize, asked).splits;
    splits = here > splits ? here : splits;
  }
  const ConvGeometry& g = problem.geometry;
  const std::int64_t bytes = problem.dtype == DType::float64 ? sizeof(double) : sizeof(float);
  return static_cast<std::size_t>(splits * g.k * g.r * g.s * bytes);
}

void backward_weight(const Problem& problem, const void* grad_output, const void* input, void* grad_weight,
                     void* workspace, std::uintptr_t stream, const Plan* asked) {
  const Plan plan =
      decide(Direction::backward_weight, problem, aligned(grad_output) && aligned(input), asked);
  const WeightGradient gradient = weight_gradient(problem, plan.vector > 1);
  const ConvGeometry& g = problem.geometry;
  dispatch_floating(problem.dtype, [&](auto zero) {
    using T = decltype(zero);
    const WeightGradientPointers pointers{grad_output, input, workspace};
    const auto sum = [&] {
      if constexpr (sizeof(T) == 2) {
        if (plan.band) return launch_band_gradient<T>(gradient, plan, pointers, stream);
      }
      launch_weight_gradient<T>(gradient, plan, pointers, stream);
    };
    sum();
  });
  gemm::add_parts(problem.dtype, workspace, grad_weight, g.k * g.r * g.s, plan.splits, stream);
}

}  // namespace cnnkernels::depthwise_conv
