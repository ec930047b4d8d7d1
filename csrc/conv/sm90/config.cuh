// conv2d's blocks of the kernel for Hopper: what its directions differ in.
#pragma once

#include "../../gemm/sm90/config.cuh"
#include "arguments.h"

namespace cnnkernels::conv::sm90 {

// Memory runs along the reduction or across it: windows and, in the forward, filters have their channels
// side by side, and those are what is summed over; the filter's input channels, and both operands of
// backward_weight, are not.
constexpr Major major_a(Direction direction) {
  return direction == Direction::backward_weight ? Major::mn : Major::k;
}
constexpr Major major_b(Direction direction) {
  return direction == Direction::forward ? Major::k : Major::mn;
}

// In: float16, bfloat16 or tf32.
template <class In, Direction kDirection_, int kTile, int kSpan>
struct Config : Shape<In, kSm90Tiles[kTile], major_a(kDirection_), major_b(kDirection_), kSpan> {
  static constexpr Direction kDirection = kDirection_;
  static constexpr bool kWeight = kDirection == Direction::backward_weight;
  static constexpr bool kInParts = kWeight;
  using Arguments = sm90::Arguments<kDirection == Direction::backward_input ? kMostPhases : 1>;
};

}  // namespace cnnkernels::conv::sm90
