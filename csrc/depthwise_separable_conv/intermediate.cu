// z alone: the depthwise half of the fused kernel, for a backward pass that computes anew what the forward
// did not save. A block takes a patch of pixels and one stage's channels.
#include "../common/launch.h"
#include "depthwise.cuh"
#include "make_pair.h"

namespace cnnkernels::depthwise_separable_conv {

namespace {

constexpr int kRows = 64;

template <class T, Reader kReader>
CNN_KERNEL(kRows / kStrip * kChunks, 4)
depthwise_alone(const __grid_constant__ Pair pair) {
  using Half = Depthwise<T, kRows, kReader>;
  CNN_SHARED(Accumulator<T>, weights, [kTaps * Half::kChannels]);
  std::uint32_t stage;
  const std::uint32_t patch = pair.column_tiles.divmod(blockIdx.x, stage);
  const int channel = static_cast<int>(stage) * Half::kChannels;
  Half half(pair, patch);
  typename Half::Weights first;
  first.load(pair, channel, 0);
  first.store(pair, weights, channel, 0);
  __syncthreads();
  Accumulator<T> sums[kStrip][Half::kChunk];
  half.sum(sums, weights, channel);
  half.finish(sums, channel, [&](int row, int, const auto& z) { half.save(row, channel, z); });
}

}  // namespace

void intermediate(const Problem& problem, const Tensors& tensors, std::uintptr_t stream, const Plan* asked) {
  Plan plan;
  plan.reader =
      asked != nullptr ? asked->reader : reader_for(problem, tensors);  // the rest is the fused tile's
  if (!can_read(plan.reader, problem, tensors)) refuse(plan, "the input is not made for that reader");
  plan.patch_columns = patch_columns_for(problem, plan.reader, kRows);
  Pair pair = make_pair(problem, tensors, plan, kRows);
  const std::int64_t patches = patches_of(problem.geometry, kRows, plan.patch_columns);
  dispatch_floating(problem.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t stages = ceil_div(pair.channels, SharedTile<T>::kDepth);
    if (patches * stages >= std::int64_t(1) << 31)
      throw_invalid_argument("depthwise_separable_conv2d: more than 2^31 tiles of the intermediate");
    pair.column_tiles = FastDivide(stages);
    const auto run = [&](auto kernel) {
      launch(kernel,
             Launch{dim3(static_cast<unsigned>(patches * stages)), dim3(kRows / kStrip * kChunks), 0, stream},
             pair);
    };
    switch (plan.reader) {
      case Reader::rows_of_three:
        if constexpr (sizeof(T) < 8) return run(depthwise_alone<T, Reader::rows_of_three>);
        return refuse(plan, "float64 has no rows of three");
      case Reader::vectors:
        return run(depthwise_alone<T, Reader::vectors>);
      case Reader::elements:
        return run(depthwise_alone<T, Reader::elements>);
    }
  });
}

}  // namespace cnnkernels::depthwise_separable_conv
