// CUTLASS's implicit GEMM for Hopper: a warp that copies by TMA, im2col for the activations, and a warpgroup
// that multiplies. All extents are N, spatial ones, C; of the filter K, spatial ones, C.
#pragma once

#include <cutlass/conv/convolution.h>
#include <cutlass/conv/dispatch_policy.hpp>

#include "launch.h"

#include <cutlass/conv/collective/collective_builder.hpp>
#include <cutlass/conv/kernel/conv_universal.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>

namespace cnnkernels::tests {

using cute::Shape;
using cutlass::conv::Operator;

template <Operator op, class Element, class Sum, class Tile, class Cluster, class Activations,
          class Output = Activations>
struct Conv {
  static constexpr int kAligned = 16 / sizeof(Element);
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, Sum, Sum, void, Output, 4, Sum, Output, 4,
      cutlass::epilogue::NoSmemWarpSpecialized>::CollectiveOp;
  using Mainloop = typename cutlass::conv::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, op, Element, Activations, kAligned, Element,
      Activations, kAligned, Sum, Tile, Cluster, cutlass::conv::collective::StageCount<3>,
      cutlass::conv::KernelImplicitTmaWarpSpecializedSm90>::CollectiveOp;
  using Problem = cutlass::conv::ConvProblemShape<op, Mainloop::DispatchPolicy::NumSpatialDimensions>;
  using Kernel = cutlass::conv::kernel::ConvUniversal<Problem, Mainloop, Epilogue>;

  // A, B, D; extents of activations and filter; padding before and behind, stride, dilation.
  static void run(const Arguments& given) {
    constexpr int kRank = Problem::RankT, kSpatial = Problem::RankS;
    std::size_t next = 3;
    const auto numbers = [&]<int count>(cute::Int<count>) {
      cute::array<int, count> all;
      for (int& number : all) number = static_cast<int>(given.number(next++));
      return all;
    };
    const auto activations = numbers(cute::Int<kRank>{}), filter = numbers(cute::Int<kRank>{});
    const auto before = numbers(cute::Int<kSpatial>{}), behind = numbers(cute::Int<kSpatial>{});
    const auto stride = numbers(cute::Int<kSpatial>{}), dilation = numbers(cute::Int<kSpatial>{});

    typename Kernel::Arguments arguments{};
    arguments.problem_shape = Problem(cutlass::conv::Mode::kCrossCorrelation, activations, filter, before,
                                      behind, stride, dilation, 1);
    arguments.mainloop = {given.pointer<const Element>(0), given.pointer<const Element>(1)};
    arguments.epilogue.thread = {Sum(1), Sum(0)};
    arguments.epilogue.ptr_D = given.pointer<Sum>(2);
    set_stride(arguments.epilogue.dD, arguments.problem_shape.stride_C);
    launch<Kernel>(arguments);
  }

 private:
  // Of M, pixels or output channels, and of N.
  template <class Stride, class Strides>
  static void set_stride(Stride& stride, const Strides& of_tensor) {
    constexpr int kLast = Problem::RankT - 1;
    if constexpr (op == Operator::kWgrad) {
      cute::get<0>(stride) = of_tensor[0];
      cute::for_each(cute::make_seq<kLast - 1>{},
                     [&](auto i) { cute::get<1, i + 1>(stride) = of_tensor[kLast - 1 - i]; });
    } else {
      cute::for_each(cute::make_seq<kLast>{},
                     [&](auto i) { cute::get<0, i>(stride) = of_tensor[kLast - 1 - i]; });
    }
  }
};

}  // namespace cnnkernels::tests
