#include "gemm.h"

namespace cnnkernels::tests {

using namespace cute;
using namespace cutlass::gemm;
using namespace cutlass::epilogue;

// Two warpgroups a tile, tiles until there are no more, both operands to two blocks, stores by TMA.
CNN_TEST(gemm_f16_cluster) {
  BuiltGemm<cutlass::half_t, Rows, Columns, float, cutlass::half_t, Shape<_128, _64, _64>, Shape<_2, _1, _1>,
            KernelTmaWarpSpecializedCooperative, TmaWarpSpecializedCooperative>::run(arguments);
}
// Two warpgroups that take turns, operands along M and N.
CNN_TEST(gemm_bf16_mn_major) {
  BuiltGemm<cutlass::bfloat16_t, Columns, Rows, float, float, Shape<_64, _128, _64>, Shape<_1, _1, _1>,
            KernelTmaWarpSpecializedPingpong, TmaWarpSpecialized>::run(arguments);
}
// Operands along M and N, which wgmma does not take of this type: A goes through registers, B is transposed.
CNN_TEST(gemm_tf32_mn_major) {
  BuiltGemm<float, Columns, Rows, float, float, Shape<_64, _64, _32>, Shape<_1, _1, _1>,
            KernelTmaWarpSpecialized, NoSmemWarpSpecialized>::run(arguments);
}
CNN_TEST(gemm_s8) {
  BuiltGemm<std::int8_t, Rows, Columns, std::int32_t, std::int32_t, Shape<_64, _64, _128>, Shape<_1, _1, _1>,
            KernelTmaWarpSpecialized, NoSmemWarpSpecialized>::run(arguments);
}

}  // namespace cnnkernels::tests
