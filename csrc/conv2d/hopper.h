// Which problems the kernel for Hopper can serve (hopper_kernel.cuh), and with what tile and split: pure
// functions of the problem, on the host.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "conv2d.h"
#include "phases.h"
#include "select.h"

namespace cnnkernels::conv2d::hopper {

inline constexpr int kRowBytes = 128;   // of the reduction that a stage holds for each row and column
inline constexpr int kCapability = 90;  // the only one whose binary has the kernel
inline constexpr std::int64_t kProcessors = 132;  // of an H100 or H200

// The two sides of a direction: how many channels a group's result has, and how many are summed over.
struct Channels {
  std::int64_t of_result, of_sum;
};
inline Channels channels(Direction direction, const Conv2dGeometry& g) {
  const std::int64_t c = g.c / g.groups, k = g.k / g.groups;
  return direction == Direction::backward_input ? Channels{c, k} : Channels{k, c};
}

// A stage's 128 bytes of the reduction are one run of channels of one tap; two or four shorter ones, each of
// a tap of its own, where channels are few. So 16 channels fill a stage with four taps, not a quarter of it.
inline constexpr int kSpans[] = {128, 64, 32};

inline std::int64_t stages_of(std::int64_t taps, std::int64_t row_bytes, int span) {
  return ceil_div(taps * ceil_div(row_bytes, span), kRowBytes / span);
}

// Bytes of a run: those that need the fewest stages, and that divide a group's channels where there are
// several groups, so that no stage reaches into the next one's. 0: there are none. backward_weight sums over
// pixels, and its runs are of the result.
inline int span_of(Direction direction, const Problem& problem) {
  if (direction == Direction::backward_weight) return kRowBytes;
  const Conv2dGeometry& g = problem.geometry;
  const std::int64_t row_bytes = channels(direction, g).of_sum * Element{problem.dtype, problem.tf32}.bytes();
  int best = 0;
  for (const int span : kSpans) {
    if (g.groups > 1 && row_bytes % span != 0) continue;
    if (best == 0 || stages_of(g.r * g.s, row_bytes, span) < stages_of(g.r * g.s, row_bytes, best))
      best = span;
  }
  return best;
}

// Is each window one pixel, and each pixel a window's? Then windows are rows of a plain matrix.
inline bool pointwise(const Conv2dGeometry& g) {
  return g.r == 1 && g.s == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 && g.pad_w == 0 &&
         g.p == g.h && g.q == g.w;
}

// The places a window's first tap takes along one axis, from `lower` to `upper` past the last pixel, and the
// farthest tap: what TMA's im2col mode is told in 8 bits each.
struct Corners {
  std::int64_t lower, upper, farthest;
  bool fit() const {
    return lower >= -128 && lower <= 127 && upper >= -128 && upper <= 127 && farthest <= 255;
  }
};
inline Corners corners_of_input(std::int64_t size, std::int64_t taps, std::int64_t places,
                                std::int64_t stride, std::int64_t pad, std::int64_t dilation) {
  return {-pad, (places - 1) * stride + 1 - size - pad, (taps - 1) * dilation};
}
inline Corners corners_of_error(const PhaseAxis& phase, std::int64_t size) {
  const std::int64_t farthest = -phase.step * (phase.taps - 1), lower = phase.origin - farthest;
  return {lower, lower + phase.pixels - size, farthest};
}

inline bool corners_fit(Direction direction, const Conv2dGeometry& g) {
  if (pointwise(g)) return true;
  if (direction != Direction::backward_input) {
    return corners_of_input(g.h, g.r, g.p, g.stride_h, g.pad_h, g.dilation_h).fit() &&
           corners_of_input(g.w, g.s, g.q, g.stride_w, g.pad_w, g.dilation_w).fit();
  }
  const auto fit = [](std::int64_t size, std::int64_t taps, std::int64_t places, std::int64_t stride,
                      std::int64_t pad, std::int64_t dilation) {
    for (std::int64_t first = 0; first < std::min(stride, size); ++first) {
      const PhaseAxis phase = phase_axis(first, size, taps, stride, pad, dilation);
      if (phase.taps > 0 && !corners_of_error(phase, places).fit()) return false;
    }
    return true;
  };
  return fit(g.h, g.r, g.p, g.stride_h, g.pad_h, g.dilation_h) &&
         fit(g.w, g.s, g.q, g.stride_w, g.pad_w, g.dilation_w);
}

// Why this engine cannot serve a problem; nothing where it can. The batch has no part in it but by sizes that
// pass 31 bits, so a sample's bits do not depend on its neighbours.
inline std::optional<std::string> cannot_serve(Direction direction, const Problem& problem) {
  const Conv2dGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const int bytes = element.bytes(), chunk = kVectorBytes / bytes;
  const auto [of_result, of_sum] = channels(direction, g);
  constexpr std::int64_t kMost = (std::int64_t(1) << 31) - 1024;
  const auto number = [](std::int64_t value) { return std::to_string(value); };

  if (problem.layout != Layout::nhwc) return "TMA copies runs of channels: only channels_last has them";
  if (engine_for(element) != Engine::mma) return "wgmma multiplies float16, bfloat16 and tf32";
  if (bytes == 4 && direction != Direction::forward)
    return "wgmma reads 32-bit operands along the reduction alone, which only the forward has in memory";
  if (g.c / g.groups % chunk != 0 || g.k / g.groups % chunk != 0)
    return "a group's " + number(g.c / g.groups) + " input and " + number(g.k / g.groups) +
           " output channels are not both multiples of 16 bytes";
  if (span_of(direction, problem) == 0)
    return "a stage would reach from a group's " + number(of_sum) + " channels into the next group's";
  if (direction != Direction::backward_input && (g.stride_h > 8 || g.stride_w > 8))
    return "TMA takes strides up to 8, not " + number(std::max(g.stride_h, g.stride_w));
  if (!corners_fit(direction, g))
    return "padding or the filter's extent pass what TMA's im2col takes: 128 before and after the image, 255 "
           "from tap to tap";
  if (g.n * g.h * g.w > kMost || g.n * g.p * g.q > kMost) return "the batch has more than 2^31 pixels";
  return std::nullopt;
}

// Why a tile cannot serve a problem that the engine can; null where it can.
inline const char* cannot_serve(Direction direction, const Problem& problem, const Tile& tile) {
  // With shorter runs the columns are few, and the kernel is not compiled for them.
  if (tile.cluster > 1 && span_of(direction, problem) != kRowBytes)
    return "a cluster shares stages whose 128 bytes are of one tap";
  return nullptr;
}

}  // namespace cnnkernels::conv2d::hopper
