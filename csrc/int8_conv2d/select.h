// Which kernel serves a convolution: pure functions on the host.
//
//   problem -> can its channels be read as vectors -> candidates -> feasible, or why not -> cost -> choice
#pragma once

#include <string>

#include "../common/geometry.h"
#include "../common/int8_plan.h"

namespace cnnkernels::int8_conv2d {

struct Problem {
  Conv2dGeometry geometry;
  bool unsigned_input = false;  // filters are int8
};

// tiles: the implicit GEMM of common/int8_product.h. depthwise: one channel a group, without tensor cores.
enum class Kernel : int { tiles, depthwise };

struct Plan {
  Kernel kernel = Kernel::tiles;
  int8::Plan tiles;

  bool operator==(const Plan&) const = default;
};

inline std::string describe(const Plan& plan) {
  return plan.kernel == Kernel::depthwise ? "depthwise" : int8::describe(plan.tiles);
}

// The reduction in runs of consecutive bytes: a row of the filter, or where dilation or groups part its taps,
// a tap.
struct Runs {
  std::int64_t bytes, across, down;

  explicit Runs(const Conv2dGeometry& g) : bytes(g.c / g.groups), across(g.s), down(g.r) {
    if (g.groups == 1 && (g.dilation_w == 1 || g.s == 1)) {
      bytes *= g.s;
      across = 1;
    }
  }
};

// `aligned`: input and weight lie at multiples of 16 bytes.
inline bool vectors(const Problem& problem, bool aligned) {
  const Conv2dGeometry& g = problem.geometry;
  return aligned && g.c / g.groups % int8::kVectorBytes == 0;
}

// Does a window reach past the image?
inline bool leaves_image(const Conv2dGeometry& g) {
  return g.pad_h > 0 || g.pad_w > 0 || (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h >= g.h ||
         (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w >= g.w;
}

// Why TMA cannot bring windows and filters; null where it can.
inline const char* not_by_tma(const Problem& problem, bool aligned) {
  const Conv2dGeometry& g = problem.geometry;
  constexpr std::int64_t kMost = (std::int64_t(1) << 31) - 1024;
  if (!aligned) return "TMA needs tensors that begin at a multiple of 16 bytes";
  if (g.c / g.groups % int8::kVectorBytes != 0) return "TMA needs a group's channels in multiples of 16";
  if (hopper::span_for(g.c / g.groups, g.r * g.s, g.groups > 1) == 0)
    return "a stage would reach from a group's channels into the next group's";
  if (g.stride_h > hopper::kMostStride || g.stride_w > hopper::kMostStride)
    return "TMA takes strides up to 8";
  if (!hopper::pointwise(g) && !(hopper::corners_of_rows(g).fit() && hopper::corners_of_columns(g).fit()))
    return "padding or the filter's extent pass what TMA's im2col takes: 128 before and after the image, 255 "
           "from tap to tap";
  if (g.n * g.h * g.w > kMost || g.n * g.p * g.q > kMost) return "the batch has more than 2^31 pixels";
  return nullptr;
}

inline int8::Extents extents(const Problem& problem, bool vectors, bool aligned) {
  const Conv2dGeometry& g = problem.geometry;
  const Runs runs(g);
  const int unit = vectors ? int8::kVectorBytes : int8::kWordBytes;
  const std::int64_t bytes = ceil_div(runs.bytes, unit) * unit * runs.across * runs.down;
  int8::Extents size{g.n * g.p * g.q, g.k / g.groups, g.groups, ceil_div(bytes, int8::kStageBytes),
                     not_by_tma(problem, aligned)};
  if (size.not_by_tma == nullptr) {
    size.span = hopper::span_for(g.c / g.groups, g.r * g.s, g.groups > 1);
    size.tma_stages = hopper::stages_of(g.r * g.s, g.c / g.groups, size.span);
  }
  return size;
}

// Why a plan cannot serve; null where it can.
inline const char* why_not(const Plan& plan, const Problem& problem, bool aligned) {
  constexpr std::int64_t kMost = std::int64_t(1) << 30;
  const Conv2dGeometry& g = problem.geometry;
  if (g.n * g.p * g.q >= 2 * kMost) return "more than 2^31 pixels of output";
  if (g.h + 2 * g.pad_h + g.r * g.dilation_h >= kMost ||
      (g.w + 2 * g.pad_w + g.s * g.dilation_w + g.stride_w) * g.c >= 2 * kMost)
    return "rows of more than 2^31 bytes, or more than 2^30 of them";
  if (plan.kernel == Kernel::depthwise)
    return g.groups == g.c ? nullptr : "a group has more than one channel";
  return int8::why_not(plan.tiles, extents(problem, plan.tiles.vectors, aligned), vectors(problem, aligned));
}

// Filters that share a single channel make a matrix product of it after all.
inline Plan select(const Problem& problem, bool aligned, const Machine& machine) {
  Plan plan;
  plan.kernel = Kernel::depthwise;
  if (problem.geometry.groups > 1 && why_not(plan, problem, aligned) == nullptr) return plan;
  plan.kernel = Kernel::tiles;
  const bool as_vectors = vectors(problem, aligned);
  plan.tiles = int8::choose(extents(problem, as_vectors, aligned), as_vectors, machine);
  return plan;
}

// What is going to be run; what cannot serve is refused with the reason.
inline Plan decide(const Problem& problem, bool aligned, const Plan* given, const Machine& machine) {
  const Plan plan = given != nullptr ? *given : select(problem, aligned, machine);
  if (const char* why = why_not(plan, problem, aligned))
    throw std::invalid_argument("int8_conv2d: the plan '" + describe(plan) +
                                "' cannot serve this problem: " + why);
  return plan;
}

}  // namespace cnnkernels::int8_conv2d
