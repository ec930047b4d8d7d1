// The kernels' view of a problem.
#pragma once

#include "select.h"

namespace cnnkernels::depthwise_separable_conv {

inline Pair make_pair(const Problem& problem, const Tensors& tensors, const Plan& plan, int rows) {
  const ConvGeometry& g = problem.geometry;
  constexpr std::int64_t kLargest = std::int64_t(1) << 30;
  for (const std::int64_t size : {g.h, g.w, g.k, problem.filters, g.n * g.p, g.q, g.r * g.s,
                                  g.r * g.dilation_h, g.s * g.dilation_w, g.stride_h, g.stride_w})
    if (size >= kLargest)
      throw std::invalid_argument("depthwise_separable_conv2d: a size must be below 2^30, but one is " +
                                  std::to_string(size));
  const auto narrow = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  const int chunk = chunk_of(problem);
  Pair pair{};
  pair.at = tensors;
  pair.x = strides(problem.layout, g.c, g.h, g.w);
  pair.z = strides(problem.layout, g.k, g.p, g.q);
  pair.y = strides(problem.layout, problem.filters, g.p, g.q);
  pair.h = narrow(g.h), pair.w = narrow(g.w);
  pair.channels = narrow(g.k), pair.filters = narrow(problem.filters);
  pair.r = narrow(g.r), pair.s = narrow(g.s);
  pair.lines = narrow(g.n * g.p), pair.p = narrow(g.p), pair.q = narrow(g.q);
  pair.stride_h = narrow(g.stride_h), pair.stride_w = narrow(g.stride_w);
  pair.pad_h = narrow(g.pad_h), pair.pad_w = narrow(g.pad_w);
  pair.dilation_h = narrow(g.dilation_h), pair.dilation_w = narrow(g.dilation_w);
  pair.keeps = plan.keeps;
  pair.patch_rows = rows / plan.patch_columns, pair.patch_columns = plan.patch_columns;
  pair.group_taps = narrow(std::min<std::int64_t>(g.r * g.s, kTaps));
  pair.patches_across = FastDivide(ceil_div(g.q, plan.patch_columns));
  pair.by_p = FastDivide(g.p);
  pair.by_s = FastDivide(g.s);
  pair.by_group_taps = FastDivide(pair.group_taps);
  pair.by_patch_columns = FastDivide(plan.patch_columns);
  pair.multiplier = FastDivide(g.k / g.c);
  pair.first = problem.depthwise_activation, pair.second = problem.pointwise_activation;
  pair.slope = problem.slope;
  pair.pointwise_vectors = g.k % chunk == 0 && aligned(tensors.pointwise_weight);
  pair.planes = problem.layout == Layout::nchw;
  // A run of pixels stays in its row of the image, and of the patch.
  pair.output_vectors =
      aligned(tensors.output) &&
      (pair.planes ? g.q % chunk == 0 && plan.patch_columns % chunk == 0 : problem.filters % chunk == 0);
  return pair;
}

}  // namespace cnnkernels::depthwise_separable_conv
