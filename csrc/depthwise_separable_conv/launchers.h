// The kernels' launchers, one an element type so that they compile side by side.
#pragma once

#include "pair.h"

namespace cnnkernels {
struct tf32;  // ptx/mma.cuh
}

namespace cnnkernels::depthwise_separable_conv {

// Which kernels there are. Exact types have no registers for the sums of the widest tiles, fp64 is here to be
// right, and what reads element by element, or multiplies in tf32, makes do with a narrow and a wide tile: in
// tf32 both together leave no registers for the widest.
constexpr bool kernel_exists(bool tensor_cores, int bytes, int tile, Reader reader) {
  if (bytes == 8) return tile == 0 && reader != Reader::rows_of_three;
  if (!tensor_cores) return tile < 2;
  if (bytes == 4) return tile == 0 || tile == (reader == Reader::elements ? 1 : 2);
  return tile != 1 || reader != Reader::elements;
}

// Those that multiply with wgmma, on compute capability 9.0 alone: 16-bit types, where vectors can be read,
// with the tiles that give each of two warpgroups 64 pixels.
constexpr bool sm90_kernel_exists(int bytes, int tile, Reader reader) {
  return bytes == 2 && tile > 0 && reader != Reader::elements;
}

// In is double, float, tf32, float16 or bfloat16.
template <class In>
void launch_fused(const Pair& pair, const Plan& plan, std::int64_t patches, std::uintptr_t stream);

// T is float16 or bfloat16.
template <class T>
void launch_sm90(const Pair& pair, const Plan& plan, std::int64_t patches, std::uintptr_t stream);

}  // namespace cnnkernels::depthwise_separable_conv
