// Which problems the kernel for Hopper can serve (gemm/sm90/kernel.cuh), and with what tile and split: pure
// functions of the problem, on the host.
#pragma once

#include <algorithm>
#include <optional>
#include <string>

#include "../../gemm/sm90/limits.h"
#include "../conv.h"
#include "../phases.h"
#include "../select.h"

namespace cnnkernels::conv::sm90 {

using namespace gemm::sm90;  // what every operator's kernel for Hopper has

// The two sides of a direction: how many channels a group's result has, and how many are summed over.
struct Channels {
  std::int64_t of_result, of_sum;
};
inline Channels channels(Direction direction, const ConvGeometry& g) {
  const std::int64_t c = g.c / g.groups, k = g.k / g.groups;
  return direction == Direction::backward_input ? Channels{c, k} : Channels{k, c};
}

// Bytes of a run of a stage. backward_weight sums over pixels, and its runs are of the result.
inline int span_of(Direction direction, const Problem& problem) {
  if (direction == Direction::backward_weight) return kRowBytes;
  const ConvGeometry& g = problem.geometry;
  const std::int64_t bytes = Element{problem.dtype, problem.tf32}.bytes();
  return span_for(channels(direction, g).of_sum * bytes, g.r * g.s, g.groups > 1);
}

inline Corners corners_of_error(const PhaseAxis& phase, std::int64_t size) {
  const std::int64_t farthest = -phase.step * (phase.taps - 1), lower = phase.origin - farthest;
  return {lower, lower + phase.pixels - size, farthest};
}

inline bool corners_fit(Direction direction, const ConvGeometry& g) {
  if (pointwise(g)) return true;
  if (direction != Direction::backward_input) return corners_of_rows(g).fit() && corners_of_columns(g).fit();
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
  const ConvGeometry& g = problem.geometry;
  const Element element{problem.dtype, problem.tf32};
  const int bytes = element.bytes(), chunk = kVectorBytes / bytes;
  const auto [of_result, of_sum] = channels(direction, g);
  constexpr std::int64_t kMost = (std::int64_t(1) << 31) - 1024;
  const auto number = [](std::int64_t value) { return std::to_string(value); };

  if (g.padding_mode != PaddingMode::zeros) return "TMA pads with zeros alone";
  if (problem.layout != Layout::nhwc) return "TMA copies runs of channels: only channels_last has them";
  if (engine_for(element) != Engine::mma) return "wgmma multiplies float16, bfloat16 and tf32";
  if (bytes == 4 && direction != Direction::forward)
    return "wgmma reads 32-bit operands along the reduction alone, which only the forward has in memory";
  if (g.c / g.groups % chunk != 0 || g.k / g.groups % chunk != 0)
    return "a group's " + number(g.c / g.groups) + " input and " + number(g.k / g.groups) +
           " output channels are not both multiples of 16 bytes";
  if (span_of(direction, problem) == 0)
    return "a stage would reach from a group's " + number(of_sum) + " channels into the next group's";
  if (direction != Direction::backward_input && (g.stride_h > kMostStride || g.stride_w > kMostStride))
    return "TMA takes strides up to 8, not " + number(std::max(g.stride_h, g.stride_w));
  if (!corners_fit(direction, g))
    return "padding or the filter's extent pass what TMA's im2col takes: 128 before and after the image, 255 "
           "from tap to tap";
  if (g.n * g.h * g.w > kMost || g.n * g.p * g.q > kMost) return "the batch has more than 2^31 pixels";
  return std::nullopt;
}

// Why a tile cannot serve a problem that the engine can; null where it can.
inline const char* cannot_serve(Direction direction, const Problem& problem, const Tile& tile) {
  if (tile.short_runs || span_of(direction, problem) == kRowBytes) return nullptr;
  if (tile.cluster > 1) return "a cluster shares stages whose 128 bytes are of one tap";
  return "its stages hold 128 bytes of one tap, and with so few channels several taps share one";
}

}  // namespace cnnkernels::conv::sm90
