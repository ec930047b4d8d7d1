#include "conv.h"

namespace cnnkernels::tests {
namespace {

using namespace cute;
using namespace cutlass::layout;

template <class Element, class Activations, int kColumns = 64>
using Dgrad = Conv<Operator::kDgrad, Element, float, Shape<_64, Shape<Int<kColumns>>, Shape<_64>>,
                   Shape<_1, _1, _1>, Activations>;
template <class Element, class Cluster, class Activations, class Filter>
using Wgrad =
    Conv<Operator::kWgrad, Element, float, Shape<_64, Shape<_64>, _64>, Cluster, Activations, Filter>;

}  // namespace

CNN_TEST(dgrad2d_f16) { Dgrad<cutlass::half_t, TensorNHWC>::run(arguments); }
// A filter of few channels: rows of 32 bytes, channels along them.
CNN_TEST(dgrad3d_bf16_narrow) { Dgrad<cutlass::bfloat16_t, TensorNDHWC, 16>::run(arguments); }
CNN_TEST(wgrad2d_f16) { Wgrad<cutlass::half_t, Shape<_1, _1, _1>, TensorNHWC, TensorKCSR>::run(arguments); }
CNN_TEST(wgrad2d_bf16_multicast) {
  Wgrad<cutlass::bfloat16_t, Shape<_2, _1, _1>, TensorNHWC, TensorKCSR>::run(arguments);
}

}  // namespace cnnkernels::tests
