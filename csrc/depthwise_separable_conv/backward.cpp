// The backward pass on the host: how pixels are divided into parts, the kernel, and the sum of the parts.
#include "../gemm/add_parts.h"
#include "backward_launchers.h"
#include "make_pair.h"

namespace cnnkernels::depthwise_separable_conv {

namespace {

struct Shape {
  std::int64_t patches, stages, filter_tiles, parts;
  int patch_columns;
};

// As many parts as give every SM a block; of patches too few for that, one each. Nothing but the filters'
// gradient depends on it.
Shape shape_of(const Problem& problem, Reader reader, bool of_pointwise, int asked) {
  const std::int64_t depth = kRowBytes / bytes_of(problem.dtype);
  Shape shape{};
  shape.patch_columns = patch_columns_for(problem, reader, kBackwardRows);
  shape.patches = patches_of(problem.geometry, kBackwardRows, shape.patch_columns);
  shape.stages = ceil_div(problem.geometry.k, depth);
  shape.filter_tiles = of_pointwise ? ceil_div(problem.filters, kBackwardFilterStages * depth) : 1;
  const std::int64_t fill = this_gpu().processors / (shape.stages * shape.filter_tiles);
  const std::int64_t most = asked > 0 ? asked : std::max<std::int64_t>(fill, 1);
  shape.parts = ceil_div(shape.patches, ceil_div(shape.patches, std::min(most, shape.patches)));
  return shape;
}

Reader reader_of(const Problem& problem, const BackwardTensors& tensors, const BackwardPlan* asked) {
  Tensors at;
  at.input = tensors.input;
  at.intermediate = tensors.grad_intermediate;
  const auto serves = [&](Reader reader) {
    return backward_kernel_exists(bytes_of(problem.dtype), reader) && can_read(reader, problem, at) &&
           (reader == Reader::elements || aligned(tensors.intermediate));
  };
  if (asked == nullptr) {
    const Reader reader = reader_for(problem, at);
    return serves(reader) ? reader : Reader::elements;
  }
  if (!serves(asked->reader))
    throw std::invalid_argument("depthwise_separable_conv2d: no backward kernel with that reader serves");
  return asked->reader;
}

}  // namespace

bool fuses_backward(const Problem& problem) { return backward_pays(problem); }

std::size_t backward_workspace(const Problem& problem, const BackwardPlan* asked) {
  // Pointers that are not aligned lead to another reader, whose patches may make more parts.
  std::int64_t parts = 0;
  for (const Reader reader : {reader_for(problem, Tensors{}), Reader::elements})
    parts = std::max(parts, shape_of(problem, reader, true, asked != nullptr ? asked->parts : 0).parts);
  const int accumulator = problem.dtype == DType::float64 ? 8 : 4;
  return static_cast<std::size_t>(parts * problem.filters * problem.geometry.k * accumulator);
}

void backward(const Problem& problem, const BackwardTensors& tensors, std::uintptr_t stream,
              const BackwardPlan* asked) {
  const Reader reader = reader_of(problem, tensors, asked);
  const bool of_pointwise = tensors.grad_pointwise != nullptr;
  const Shape shape = shape_of(problem, reader, of_pointwise, asked != nullptr ? asked->parts : 0);
  const std::int64_t blocks = shape.parts * shape.stages * shape.filter_tiles;
  if (blocks >= std::int64_t(1) << 31 || shape.patches >= std::int64_t(1) << 31)
    throw std::invalid_argument("depthwise_separable_conv2d: more than 2^31 tiles of the error");

  Tensors at;
  at.input = tensors.input;
  at.depthwise_weight = tensors.depthwise_weight;
  at.pointwise_weight = tensors.pointwise_weight;
  at.depthwise_bias = tensors.depthwise_bias;
  Plan plan;
  plan.reader = reader;
  plan.patch_columns = shape.patch_columns;
  const Pair pair = make_pair(problem, at, plan, kBackwardRows);
  Errors errors{};
  errors.of_output = tensors.grad_output;
  errors.saved = tensors.intermediate;
  errors.of_intermediate = tensors.grad_intermediate;
  errors.parts = of_pointwise ? tensors.workspace : nullptr;
  errors.patches = static_cast<std::int32_t>(shape.patches);
  errors.patches_a_part = static_cast<std::int32_t>(ceil_div(shape.patches, shape.parts));
  errors.filter_tiles = FastDivide(shape.filter_tiles);
  errors.stages = FastDivide(shape.stages);
  errors.output_vectors = problem.layout == Layout::nhwc && problem.filters % chunk_of(problem) == 0 &&
                          aligned(tensors.grad_output);
  dispatch_floating(problem.dtype, [&](auto zero) {
    launch_backward<decltype(zero)>(pair, errors, reader, blocks, stream);
  });
  if (of_pointwise) {
    gemm::add_parts(problem.dtype, tensors.workspace, tensors.grad_pointwise,
                    problem.filters * problem.geometry.k, static_cast<int>(shape.parts), stream);
  }
}

}  // namespace cnnkernels::depthwise_separable_conv
