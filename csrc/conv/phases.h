// The phases of backward_input: input pixel h met filter row r at output row p with p stride = h + pad - r
// dilation, so which rows r it met depends on h modulo the stride alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace cnnkernels::conv {

// One axis of a phase: pixels first, first + stride, ... take taps first_tap, first_tap + tap_step, ..., and
// pixel i meets tap j at output origin + i + j * step.
struct PhaseAxis {
  std::int64_t first, pixels, first_tap, tap_step, taps, origin, step;
};

inline PhaseAxis phase_axis(std::int64_t first, std::int64_t size, std::int64_t taps, std::int64_t stride,
                            std::int64_t pad, std::int64_t dilation) {
  const std::int64_t common = std::gcd(dilation, stride), pixels = (size - first + stride - 1) / stride;
  PhaseAxis result{first, pixels, 0, stride / common, 0, 0, -dilation / common};
  for (std::int64_t r = 0; r < std::min(result.tap_step, taps); ++r) {
    const std::int64_t reach = first + pad - r * dilation;
    if (reach % stride != 0) continue;
    result.first_tap = r;
    result.taps = (taps - 1 - r) / result.tap_step + 1;
    result.origin = reach / stride;
    break;
  }
  return result;
}

}  // namespace cnnkernels::conv
