// CUTLASS's GEMMs for Hopper: D = A B, D by rows.
#pragma once

#include <cutlass/gemm/dispatch_policy.hpp>

#include "launch.h"

#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/util/packed_stride.hpp>

namespace cnnkernels::tests {

using cute::Shape;
using Rows = cutlass::layout::RowMajor;
using Columns = cutlass::layout::ColumnMajor;

template <class Output, class Sum, class Tile, class Cluster, class Schedule>
using GemmEpilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
    cutlass::epilogue::collective::EpilogueTileAuto, Sum, Sum, void, Rows, 16 / sizeof(Output), Output, Rows,
    16 / sizeof(Output), Schedule>::CollectiveOp;

template <class Mainloop, class Epilogue>
struct Gemm {
  using Kernel = cutlass::gemm::kernel::GemmUniversal<Shape<int, int, int, int>, Mainloop, Epilogue>;

  // A, B, D, M, N, K.
  static void run(const Arguments& given) {
    const auto number = [&](std::size_t i) { return static_cast<int>(given.number(i)); };
    const int m = number(3), n = number(4), k = number(5);
    typename Kernel::Arguments arguments{};
    arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
    arguments.problem_shape = {m, n, k, 1};
    arguments.mainloop.ptr_A = given.pointer<const typename Kernel::ElementA>(0);
    arguments.mainloop.dA = cutlass::make_cute_packed_stride(typename Kernel::StrideA{}, {m, k, 1});
    arguments.mainloop.ptr_B = given.pointer<const typename Kernel::ElementB>(1);
    arguments.mainloop.dB = cutlass::make_cute_packed_stride(typename Kernel::StrideB{}, {n, k, 1});
    using Sum = typename Kernel::ElementAccumulator;
    arguments.epilogue.thread = {Sum(1), Sum(0)};
    arguments.epilogue.ptr_D = given.pointer<typename Kernel::ElementD>(2);
    arguments.epilogue.dD = cutlass::make_cute_packed_stride(typename Kernel::StrideD{}, {m, n, 1});
    launch<Kernel>(arguments);
  }
};

// Of few stages, so that small problems go round: what the builder may not take of shared memory.
constexpr int kLeft = cutlass::gemm::collective::detail::sm90_smem_capacity_bytes - 80 * 1024;

template <class Element, class LayoutA, class LayoutB, class Sum, class Output, class Tile, class Cluster,
          class Schedule, class EpilogueSchedule>
using BuiltGemm = Gemm<typename cutlass::gemm::collective::CollectiveBuilder<
                           cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA,
                           16 / sizeof(Element), Element, LayoutB, 16 / sizeof(Element), Sum, Tile, Cluster,
                           cutlass::gemm::collective::StageCountAutoCarveout<kLeft>, Schedule>::CollectiveOp,
                       GemmEpilogue<Output, Sum, Tile, Cluster, EpilogueSchedule>>;

}  // namespace cnnkernels::tests
