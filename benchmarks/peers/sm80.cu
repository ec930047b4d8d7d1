// CUTLASS's convolutions by mma.sync that stand beside ours in docs/performance.md: compiled to be read
// (benchmarks/machine_code_peers.py), not run.
#include <cutlass/conv/kernel/default_conv2d_dgrad.h>
#include <cutlass/conv/kernel/default_conv2d_fprop.h>
#include <cutlass/conv/kernel/default_conv2d_wgrad.h>
#include <cutlass/device_kernel.h>
#include <cutlass/gemm/kernel/default_gemm.h>

using cutlass::bfloat16_t;
using NHWC = cutlass::layout::TensorNHWC;
using cutlass::conv::IteratorAlgorithm;
using cutlass::conv::StrideSupport;
using cutlass::gemm::GemmShape;
using Swizzle = cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<4>;
using Finish = cutlass::epilogue::thread::LinearCombination<bfloat16_t, 8, float, float>;

// Four stages of 128x128x32 a block, four warps of 64x64.
template <template <class, class, class, class, class, class, class, class, class, class, class, class, class,
                    class, int, class, IteratorAlgorithm, StrideSupport, int, int> class Default>
using Conv = typename Default<bfloat16_t, NHWC, bfloat16_t, NHWC, bfloat16_t, NHWC, float,
                              cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, GemmShape<128, 128, 32>,
                              GemmShape<64, 64, 32>, GemmShape<16, 8, 16>, Finish, Swizzle, 4,
                              cutlass::arch::OpMultiplyAdd, IteratorAlgorithm::kOptimized,
                              StrideSupport::kUnity, 8, 8>::Kernel;

// To be compiled one at a time: CNN_PEER names it.
using forward_bf16_128x128 = Conv<cutlass::conv::kernel::DefaultConv2dFprop>;
using backward_input_bf16_128x128 = Conv<cutlass::conv::kernel::DefaultConv2dDgrad>;
using backward_weight_bf16_128x128 = Conv<cutlass::conv::kernel::DefaultConv2dWgrad>;
using gemm_s8_128x128 = typename cutlass::gemm::kernel::DefaultGemm<
    std::int8_t, cutlass::layout::RowMajor, 16, std::int8_t, cutlass::layout::ColumnMajor, 16, std::int8_t,
    cutlass::layout::RowMajor, std::int32_t, cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80,
    GemmShape<128, 128, 64>, GemmShape<64, 64, 64>, GemmShape<16, 8, 32>,
    cutlass::epilogue::thread::LinearCombinationClamp<std::int8_t, 16, std::int32_t, float>, Swizzle, 3,
    false, cutlass::arch::OpMultiplyAddSaturate>::GemmKernel;

template __global__ void cutlass::Kernel<CNN_PEER>(CNN_PEER::Params);
