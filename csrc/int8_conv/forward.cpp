// A convolution as the implicit GEMM of pixels' windows by filters.
#include <stdexcept>

#include "describe.h"
#include "../int8/product.h"
#include "int8_conv.h"

namespace cnnkernels::int8_conv {

Plan decide(const Problem& problem, bool aligned, const Plan* given, const Gpu& gpu) {
  const Plan plan = given != nullptr ? *given : select(problem, aligned, gpu);
  const char* why = why_not(plan, problem, aligned);
  if (why == nullptr && plan.kernel == Kernel::tiles) why = int8::why_not(plan.tiles, gpu);
  if (why != nullptr)
    throw std::invalid_argument("int8_conv2d: the plan '" + describe(plan) +
                                "' cannot serve this problem: " + why);
  return plan;
}

namespace {

bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % int8::kVectorBytes == 0;
}

// Whether filters' sums are to be computed here. The kernels without tensor cores make their own on their
// way.
bool asks_for_sums(const int8::Epilogue& epilogue, const Plan& plan) {
  return epilogue.zero_point_a.value != 0 && epilogue.sums_b == nullptr && plan.kernel == Kernel::tiles;
}

// What TMA brings from outside of the image is no zero point: the window sums correct it.
bool asks_for_window_sums(const ConvGeometry& g, const int8::Epilogue& epilogue, const Plan& plan) {
  return plan.kernel == Kernel::tiles && plan.tiles.wgmma && epilogue.zero_point_a.value != 0 &&
         leaves_image(g);
}

std::size_t sums_bytes(const Problem& problem, const int8::Epilogue& epilogue, const Plan& plan) {
  const ConvGeometry& g = problem.geometry;
  if (asks_for_window_sums(g, epilogue, plan))
    return static_cast<std::size_t>(ceil_div((g.r + 1) * (g.s + 1) * g.k, 4)) * 16;
  return asks_for_sums(epilogue, plan) ? static_cast<std::size_t>(ceil_div(problem.geometry.k, 4)) * 16 : 0;
}

int8::Operand windows(const ConvGeometry& g, const Runs& runs, const void* input, std::int32_t zero_point) {
  const std::int64_t row = g.w * g.c;
  int8::Operand a;
  a.data = static_cast<const std::uint8_t*>(input);
  a.ragged = int8::words_reach_out(input, g.n * g.h * row);
  a.group_stride = g.c / g.groups;
  a.extent = g.n * g.p * g.q;
  a.q = FastDivide(g.q);
  a.p = FastDivide(g.p);
  a.offset_q = g.stride_w * g.c;
  a.offset_p = g.stride_h * row;
  a.offset_n = g.h * row;
  a.h_p = static_cast<std::int32_t>(g.stride_h);
  a.x_q = static_cast<std::int32_t>(g.stride_w * g.c);
  a.offset_across = runs.across == 1 ? 0 : g.dilation_w * g.c;
  a.x_across = static_cast<std::int32_t>(a.offset_across);
  a.offset_down = g.dilation_h * row;
  a.h_down = static_cast<std::int32_t>(g.dilation_h);
  a.origin = -g.pad_h * row - g.pad_w * g.c;
  a.origin_h = static_cast<std::int32_t>(-g.pad_h);
  a.origin_x = static_cast<std::int32_t>(-g.pad_w * g.c);
  a.height = static_cast<std::int32_t>(g.h);
  a.row_bytes = static_cast<std::int32_t>(row);
  a.fill = 0x01010101u * static_cast<std::uint8_t>(zero_point);
  return a;
}

int8::Operand filters(const ConvGeometry& g, const Runs& runs, const void* weight) {
  const std::int64_t filter = runs.bytes * runs.across * runs.down;
  int8::Operand b;
  b.data = static_cast<const std::uint8_t*>(weight);
  b.ragged = int8::words_reach_out(weight, g.k * filter);
  b.group_stride = g.k / g.groups * filter;
  b.extent = g.k / g.groups;
  b.q = b.p = FastDivide(1);
  b.offset_n = filter;
  b.offset_across = runs.bytes;
  b.offset_down = runs.across * runs.bytes;
  return b;
}

}  // namespace

std::size_t workspace(const Problem& problem, const int8::Epilogue& epilogue, bool aligned,
                      const Plan* given) {
  const Plan plan = decide(problem, aligned, given, this_gpu());
  const ConvGeometry& g = problem.geometry;
  const std::size_t parts =
      plan.kernel == Kernel::tiles ? int8::workspace_bytes(plan.tiles, g.n * g.p * g.q, g.k) : 0;
  return sums_bytes(problem, epilogue, plan) + parts;
}

void forward(const Problem& problem, const void* input, const void* weight, const int8::Epilogue& asked,
             void* output, void* workspace, std::uintptr_t stream, const Plan* given) {
  const ConvGeometry& g = problem.geometry;
  const bool aligned = is_aligned(input) && is_aligned(weight);
  const Plan plan = decide(problem, aligned, given, this_gpu());
  if (plan.kernel == Kernel::depthwise)
    return launch_depthwise(problem, input, weight, asked, output, stream);
  if (plan.kernel == Kernel::grouped) return launch_grouped(problem, input, weight, asked, output, stream);

  const Runs runs(g);
  const std::int64_t depth = runs.bytes * runs.across * runs.down;
  int8::Product product;
  product.a = windows(g, runs, input, asked.zero_point_a.value);
  product.b = filters(g, runs, weight);
  product.depth.run_bytes = runs.bytes;
  product.depth.down = runs.down;
  product.depth.across = FastDivide(runs.across);
  product.unsigned_a = problem.unsigned_input;
  product.groups = g.groups;
  product.output = output;
  product.epilogue = asked;
  product.epilogue.depth = static_cast<std::int32_t>(depth);
  if (asked.zero_point_a.value == 0) product.epilogue.sums_b = nullptr;
  auto* const sums = static_cast<std::int32_t*>(workspace);
  const bool by_windows = asks_for_window_sums(g, asked, plan);
  if (by_windows) {
    int8::launch_window_sums(weight, g.k, static_cast<int>(g.r), static_cast<int>(g.s),
                             static_cast<int>(g.c / g.groups), sums, stream);
  } else if (asks_for_sums(asked, plan)) {
    int8::launch_sums({weight, g.k, depth, depth, 1, false}, sums, stream);
    product.epilogue.sums_b = sums;
  }
  auto* const parts = static_cast<unsigned char*>(workspace) + sums_bytes(problem, asked, plan);
  if (!plan.tiles.wgmma) return int8::launch_product(product, plan.tiles, parts, stream);
  int8::launch_sm90(product, {g, input, weight, g.c, depth, by_windows ? sums : nullptr}, plan.tiles, parts,
                    stream);
}

}  // namespace cnnkernels::int8_conv
