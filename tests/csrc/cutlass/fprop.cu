#include "conv.h"

namespace cnnkernels::tests {
namespace {

using namespace cute;
using namespace cutlass::layout;

template <class Element, class Sum, class Tile, class Cluster, class Activations>
using Fprop = Conv<Operator::kFprop, Element, Sum, Tile, Cluster, Activations>;

}  // namespace

CNN_TEST(fprop2d_f16) {
  Fprop<cutlass::half_t, float, Shape<_64, _64, Shape<_64>>, Shape<_1, _1, _1>, TensorNHWC>::run(arguments);
}
// Its im2col copies go to two blocks each, half of the pixels by either.
CNN_TEST(fprop2d_bf16_multicast) {
  Fprop<cutlass::bfloat16_t, float, Shape<_64, _64, Shape<_64>>, Shape<_1, _2, _1>, TensorNHWC>::run(
      arguments);
}
// Rows of 32 bytes.
CNN_TEST(fprop2d_f16_narrow) {
  Fprop<cutlass::half_t, float, Shape<_64, _64, Shape<_16>>, Shape<_1, _1, _1>, TensorNHWC>::run(arguments);
}
CNN_TEST(fprop1d_tf32) {
  Fprop<float, float, Shape<_64, _64, Shape<_32>>, Shape<_1, _1, _1>, TensorNWC>::run(arguments);
}
CNN_TEST(fprop3d_s8) {
  Fprop<std::int8_t, std::int32_t, Shape<_64, _64, Shape<_64>>, Shape<_1, _1, _1>, TensorNDHWC>::run(
      arguments);
}

}  // namespace cnnkernels::tests
