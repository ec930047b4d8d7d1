// conv2d on the kernel for Hopper: element type, direction and tile are template parameters.
#pragma once

#include "../../gemm/sm90/kernel.cuh"
#include "../../common/types.h"
#include "launch.h"
#include "loads.cuh"
#include "store.cuh"

namespace cnnkernels::conv::sm90 {

template <class C>
CNN_KERNEL(kThreads, 1)
convolution(const __grid_constant__ typename C::Arguments a) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(memory);
  CNN_SHARED(Ring<C::kStages>, rings, [1]);
  run<C, Loads<C>, Store<C>>(a, memory, rings[0]);
#else
  left_out();
#endif
}

// Turns a plan's tile into a template parameter.
template <class In, Direction kDirection, int kSpan, class A>
void launch_tile(const A& a, const Plan& plan, std::uintptr_t stream) {
  const auto one = [&]<int kTile>(std::integral_constant<int, kTile>) {
    if constexpr (kSm90Tiles[kTile].short_runs || kSpan == kRowBytes) {  // cannot_serve()
      using C = Config<In, kDirection, kTile, kSpan>;
      if (plan.tile == kTile) launch_blocks<C>(convolution<C>, a, plan.blocks, stream);
    }
  };
  const auto with = [&]<int... kTile>(std::integer_sequence<int, kTile...>) {
    (one(std::integral_constant<int, kTile>{}), ...);
  };
  with(std::make_integer_sequence<int, kSm90TileCount>{});
}
template <class In, Direction kDirection, class A>
void launch_span(const A& a, const Plan& plan, std::uintptr_t stream) {
  switch (a.span) {
    case 32:
      return launch_tile<In, kDirection, 32>(a, plan, stream);
    case 64:
      return launch_tile<In, kDirection, 64>(a, plan, stream);
    default:
      return launch_tile<In, kDirection, 128>(a, plan, stream);
  }
}

template <class In>
void launch_forward(const ForwardArguments& a, const Plan& plan, std::uintptr_t stream) {
  launch_span<In, Direction::forward>(a, plan, stream);
}
template <class In>
void launch_backward_input(const BackwardInputArguments& a, const Plan& plan, std::uintptr_t stream) {
  launch_span<In, Direction::backward_input>(a, plan, stream);
}
template <class In>
void launch_backward_weight(const BackwardWeightArguments& a, const Plan& plan, std::uintptr_t stream) {
  launch_tile<In, Direction::backward_weight, kRowBytes>(a, plan, stream);
}

}  // namespace cnnkernels::conv::sm90
