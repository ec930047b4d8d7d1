// Products of two matrices of any strides: their operands, their zero points' sums, their launch.
#include <stdexcept>

#include "describe.h"
#include "../int8/product.h"
#include "int8_gemm.h"

namespace cnnkernels::int8_gemm {

Plan decide(const Problem& p, const Plan* plan, const Gpu& gpu) {
  if (plan == nullptr) return select(p, gpu);
  const char* why = why_not(*plan, p);
  if (why == nullptr && plan->kernel == Kernel::tiles) why = int8::why_not(plan->tiles, gpu);
  if (why != nullptr)
    throw std::invalid_argument("int8_gemm: the plan '" + describe(*plan) +
                                "' cannot serve this problem: " + why);
  return *plan;
}

namespace {

// Where a workspace holds what, each at multiples of 16 bytes: sums of a's rows, sums of b's columns, copies
// of a and b, partial sums.
struct Workspace {
  std::size_t sums_a = 0, sums_b = 0, a = 0, b = 0, parts = 0, end = 0;

  Workspace(const Problem& p, const int8::Epilogue& epilogue, const Plan& plan) {
    const auto words = [](std::int64_t count) { return static_cast<std::size_t>(ceil_div(count, 4)) * 16; };
    const bool asks_b = present(epilogue.zero_point_a) && epilogue.sums_b == nullptr;
    sums_b = present(epilogue.zero_point_b) ? words(p.m) : 0;
    a = sums_b + (asks_b ? words(p.n) : 0);
    b = a + (plan.pack_a ? static_cast<std::size_t>(p.m * padded_depth(p.k)) : 0);
    parts = a + static_cast<std::size_t>(packed_bytes(p, plan));
    end = parts + (plan.kernel == Kernel::tiles ? int8::workspace_bytes(plan.tiles, p.m, p.n) : 0);
  }

  static bool present(const int8::Number<std::int32_t>& zero_point) {
    return zero_point.data != nullptr || zero_point.value != 0;
  }
};

int8::Operand operand(const void* data, Access access, std::int64_t side, std::int64_t side_stride,
                      std::int64_t depth, std::int64_t depth_stride) {
  int8::Operand o;
  o.data = static_cast<const std::uint8_t*>(data);
  o.access = access;
  o.ragged = int8::words_reach_out(data, (side - 1) * side_stride + (depth - 1) * depth_stride + 1);
  o.extent = side;
  o.q = o.p = FastDivide(1);
  o.offset_n = side_stride;
  o.depth_stride = depth_stride;
  return o;
}
int8::Operand operand_a(const Problem& p) {
  return operand(p.a.data, access_of_a(p), p.m, p.a.row_stride, p.k, p.a.column_stride);
}
int8::Operand operand_b(const Problem& p) {
  return operand(p.b.data, access_of_b(p), p.n, p.b.column_stride, p.k, p.b.row_stride);
}

// Rows of a are pixels of an image of one row, columns of b its filters. A single one's stride says nothing.
int8::Boxes boxes(const Problem& p) {
  const std::int64_t pitch = padded_depth(p.k);
  int8::Boxes found;
  ConvGeometry& g = found.geometry;  // a row of pixels
  g.c = p.k, g.w = g.q = p.m, g.k = p.n;
  g.n = g.d = g.h = g.t = g.r = g.s = g.z = g.p = g.groups = 1;
  g.stride_d = g.stride_h = g.stride_w = g.dilation_d = g.dilation_h = g.dilation_w = 1;
  found.a = p.a.data;
  found.b = p.b.data;
  found.pixel_bytes = p.m > 1 ? p.a.row_stride : pitch;
  found.filter_bytes = p.n > 1 ? p.b.column_stride : pitch;
  return found;
}

}  // namespace

std::size_t workspace(const Problem& problem, const int8::Epilogue& epilogue, const Plan* plan) {
  return Workspace(problem, epilogue, decide(problem, plan, this_gpu())).end;
}

void forward(const Problem& problem, const int8::Epilogue& asked, void* output, void* workspace,
             std::uintptr_t stream, const Plan* given) {
  const Problem& p = problem;
  const Plan plan = decide(p, given, this_gpu());
  const Workspace at(p, asked, plan);
  auto* const memory = static_cast<unsigned char*>(workspace);

  int8::Epilogue epilogue = asked;
  epilogue.depth = static_cast<std::int32_t>(p.k);
  if (!Workspace::present(asked.zero_point_a)) {
    epilogue.sums_b = nullptr;
  } else if (asked.sums_b == nullptr) {
    auto* sums = reinterpret_cast<std::int32_t*>(memory + at.sums_b);
    int8::launch_sums({p.b.data, p.n, p.k, p.b.column_stride, p.b.row_stride, false}, sums, stream);
    epilogue.sums_b = sums;
  }
  if (Workspace::present(asked.zero_point_b)) {
    auto* sums = reinterpret_cast<std::int32_t*>(memory + at.sums_a);
    int8::launch_sums({p.a.data, p.m, p.k, p.a.row_stride, p.a.column_stride, p.unsigned_a}, sums, stream);
    epilogue.sums_a = sums;
  }

  if (plan.pack_a) launch_pack(operand_a(p), p.k, memory + at.a, stream);
  if (plan.pack_b) launch_pack(operand_b(p), p.k, memory + at.b, stream);
  const Problem left = packed(p, plan, memory + at.a, memory + at.b);
  if (plan.kernel == Kernel::stream_weights)
    return launch_stream_weights(left, plan, epilogue, output, stream);

  int8::Product product;
  product.a = operand_a(left);
  product.b = operand_b(left);
  product.depth.run_bytes = left.k;
  product.unsigned_a = p.unsigned_a;
  product.output = output;
  product.epilogue = epilogue;
  if (!plan.tiles.wgmma) return int8::launch_product(product, plan.tiles, memory + at.parts, stream);
  int8::launch_sm90(product, boxes(left), plan.tiles, memory + at.parts, stream);
}

}  // namespace cnnkernels::int8_gemm
