// y = w * x + b, one filter (or several) for each channel.
#include "correlate.h"
#include "select.h"

namespace cnnkernels::depthwise_conv {

Correlation forward_correlation(const Problem& problem, bool along_row) {
  const ConvGeometry& g = problem.geometry;
  Correlation c{};
  c.a = along_row ? columns_axis(g) : rows_axis(g);
  c.b = along_row ? rows_axis(g) : columns_axis(g);
  c.source = view(problem.layout, along_row, g.c, g.h, g.w);
  c.result = view(problem.layout, along_row, g.k, g.p, g.q);
  c.taps = filter_taps(g, along_row);
  c.channels_last = problem.layout == Layout::nhwc;
  c.images = static_cast<Index>(g.n);
  c.channels = FastDivide(g.k);
  c.multiplier = FastDivide(g.k / g.c);
  c.terms = 1;
  return c;
}

void forward(const Problem& problem, const void* input, const void* weight, const void* bias, void* output,
             std::uintptr_t stream, const Plan* plan) {
  correlate(Direction::forward, problem, {input, weight, bias, output}, stream, plan);
}

Plan plan_of(Direction direction, const Problem& problem) { return select(direction, problem, true); }

}  // namespace cnnkernels::depthwise_conv
