// CUTLASS's kernels for Hopper that stand beside ours in docs/performance.md, with its own choice of stages
// and epilogue: compiled to be read (benchmarks/machine_code_peers.py), not run.
#include <cutlass/kernel_hardware_info.h>

#include <cutlass/conv/convolution.h>
#include <cutlass/conv/dispatch_policy.hpp>

#include <cutlass/conv/collective/collective_builder.hpp>
#include <cutlass/conv/kernel/conv_universal.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

using namespace cute;
using cutlass::bfloat16_t;
using cutlass::conv::Operator;
using cutlass::epilogue::collective::EpilogueTileAuto;

template <class Element, class Sum, class Output, class Tile, class Cluster, class Schedule, class Finish>
struct Gemm {
  static constexpr int kAligned = 16 / sizeof(Element), kAlignedOutput = 16 / sizeof(Output);
  using Rows = cutlass::layout::RowMajor;
  using Columns = cutlass::layout::ColumnMajor;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster, EpilogueTileAuto, Sum, float, void,
      Rows, kAlignedOutput, Output, Rows, kAlignedOutput, Finish>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, Rows, kAligned, Element, Columns,
      kAligned, Sum, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<sizeof(typename Epilogue::SharedStorage)>,
      Schedule>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<Shape<int, int, int, int>, Mainloop, Epilogue>;
};

template <Operator op, class Element, class Sum, class Tile, class Cluster,
          class Output = cutlass::layout::TensorNHWC>
struct Conv {
  static constexpr int kAligned = 16 / sizeof(Element);
  using Layout = cutlass::layout::TensorNHWC;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster, EpilogueTileAuto, Sum, float, void,
      Output, kAligned, Element, Output, kAligned,
      cutlass::epilogue::collective::EpilogueScheduleAuto>::CollectiveOp;
  using Mainloop = typename cutlass::conv::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, op, Element, Layout, kAligned, Element, Layout,
      kAligned, Sum, Tile, Cluster,
      cutlass::conv::collective::StageCountAutoCarveout<sizeof(typename Epilogue::SharedStorage)>,
      cutlass::conv::collective::KernelScheduleAuto>::CollectiveOp;
  using Problem = cutlass::conv::ConvProblemShape<op, Mainloop::DispatchPolicy::NumSpatialDimensions>;
  using Kernel = cutlass::conv::kernel::ConvUniversal<Problem, Mainloop, Epilogue>;
};

using Pairs = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
using PairsStore = cutlass::epilogue::TmaWarpSpecializedCooperative;
using Alone = Shape<_1, _1, _1>;
using Two = Shape<_2, _1, _1>;

// To be compiled one at a time, as each takes a minute and gigabytes: CNN_PEER names it.
using gemm_bf16_128x256 = Gemm<bfloat16_t, float, bfloat16_t, Shape<_128, _256, _64>, Two, Pairs, PairsStore>;
using gemm_s8_128x256 = Gemm<std::int8_t, int, std::int8_t, Shape<_128, _256, _128>, Two, Pairs, PairsStore>;
using forward_bf16_128x128 = Conv<Operator::kFprop, bfloat16_t, float, Shape<_128, _128, Shape<_64>>, Alone>;
using backward_input_bf16_128x128 =
    Conv<Operator::kDgrad, bfloat16_t, float, Shape<_128, _128, Shape<_64>>, Alone>;
using backward_weight_bf16_128x128 = Conv<Operator::kWgrad, bfloat16_t, float, Shape<_128, Shape<_128>, _64>,
                                          Alone, cutlass::layout::TensorKCSR>;

template __global__ void cutlass::device_kernel<CNN_PEER::Kernel>(
    __grid_constant__ const CNN_PEER::Kernel::Params);
