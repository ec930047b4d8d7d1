// Which kernel serves a convolution: pure functions on the host.
//
//   problem -> can its channels be read as vectors -> candidates -> feasible, or why not -> cost -> choice
#pragma once

#include "../common/geometry.h"
#include "../int8/plan.h"

namespace cnnkernels::int8_conv {

struct Problem {
  ConvGeometry geometry;
  bool unsigned_input = false;  // filters are int8
};

// tiles: the implicit GEMM of int8/product.h. depthwise, grouped: one channel a group, or 4, 8 or 16,
// without tensor cores.
enum class Kernel : int { tiles, depthwise, grouped };

struct Plan {
  Kernel kernel = Kernel::tiles;
  int8::Plan tiles;

  bool operator==(const Plan&) const = default;
};

// The reduction in runs of consecutive bytes: a row of the filter, or where dilation or groups part its taps,
// a tap.
struct Runs {
  std::int64_t bytes, across, down;

  explicit Runs(const ConvGeometry& g) : bytes(g.c / g.groups), across(g.s), down(g.r) {
    if (g.groups == 1 && (g.dilation_w == 1 || g.s == 1)) {
      bytes *= g.s;
      across = 1;
    }
  }
};

// `aligned`: input and weight lie at multiples of 16 bytes.
inline bool vectors(const Problem& problem, bool aligned) {
  const ConvGeometry& g = problem.geometry;
  return aligned && g.c / g.groups % int8::kVectorBytes == 0;
}

// Does a window reach past the image?
inline bool leaves_image(const ConvGeometry& g) {
  return g.pad_h > 0 || g.pad_w > 0 || (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h >= g.h ||
         (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w >= g.w;
}

// Why TMA cannot bring windows and filters; null where it can.
inline const char* not_by_tma(const Problem& problem, bool aligned) {
  const ConvGeometry& g = problem.geometry;
  constexpr std::int64_t kMost = (std::int64_t(1) << 31) - 1024;
  if (!aligned) return "TMA needs tensors that begin at a multiple of 16 bytes";
  if (g.c / g.groups % int8::kVectorBytes != 0) return "TMA needs a group's channels in multiples of 16";
  if (gemm::sm90::span_for(g.c / g.groups, g.r * g.s, g.groups > 1) == 0)
    return "a stage would reach from a group's channels into the next group's";
  if (g.stride_h > gemm::sm90::kMostStride || g.stride_w > gemm::sm90::kMostStride)
    return "TMA takes strides up to 8";
  if (!gemm::sm90::pointwise(g) &&
      !(gemm::sm90::corners_of_rows(g).fit() && gemm::sm90::corners_of_columns(g).fit()))
    return "padding or the filter's extent pass what TMA's im2col takes: 128 before and after the image, 255 "
           "from tap to tap";
  if (g.n * g.h * g.w > kMost || g.n * g.p * g.q > kMost) return "the batch has more than 2^31 pixels";
  return nullptr;
}

inline int8::Extents extents(const Problem& problem, bool vectors, bool aligned) {
  const ConvGeometry& g = problem.geometry;
  const Runs runs(g);
  const int unit = vectors ? int8::kVectorBytes : int8::kWordBytes;
  const std::int64_t bytes = ceil_div(runs.bytes, unit) * unit * runs.across * runs.down;
  int8::Extents size{g.n * g.p * g.q, g.k / g.groups, g.groups, ceil_div(bytes, int8::kStageBytes),
                     not_by_tma(problem, aligned)};
  if (size.not_by_tma == nullptr) {
    size.span = gemm::sm90::span_for(g.c / g.groups, g.r * g.s, g.groups > 1);
    size.tma_stages = gemm::sm90::stages_of(g.r * g.s, g.c / g.groups, size.span);
  }
  return size;
}

// Why a plan cannot serve; null where it can.
inline const char* why_not(const Plan& plan, const Problem& problem, bool aligned) {
  constexpr std::int64_t kMost = std::int64_t(1) << 30;
  const ConvGeometry& g = problem.geometry;
  if (g.n * g.p * g.q >= 2 * kMost) return "more than 2^31 pixels of output";
  if (g.k > 2 * kMost - 1024) return "more than 2^31 filters";
  if (g.h + 2 * g.pad_h + g.r * g.dilation_h >= kMost ||
      (g.w + 2 * g.pad_w + g.s * g.dilation_w + g.stride_w) * g.c >= 2 * kMost)
    return "rows of more than 2^31 bytes, or more than 2^30 of them";
  if (plan.kernel == Kernel::depthwise)
    return g.groups == g.c ? nullptr : "a group has more than one channel";
  if (plan.kernel == Kernel::grouped) {
    const std::int64_t channels = g.c / g.groups;
    if (channels != 4 && channels != 8 && channels != 16) return "a group has other than 4, 8 or 16 channels";
    if (g.k / g.groups % 4 != 0) return "a group's filters are no multiple of four";
    return aligned ? nullptr : "input and weight must begin at multiples of 16 bytes";
  }
  return int8::why_not(plan.tiles, extents(problem, plan.tiles.vectors, aligned), vectors(problem, aligned));
}

// Seconds the grouped kernel should take. By its machine code, a tap of a pixel and four filters is some 13
// instructions and 1.7 for each channel, one of them a dp4a; 64 lanes of a dp4a a clock and SM are assumed,
// 128 of the others.
inline double grouped_seconds(const Problem& problem, const Gpu& gpu) {
  constexpr double kTap = 0.1e-6;  // a load's latency that nothing hides
  const ConvGeometry& g = problem.geometry;
  const double pixels = static_cast<double>(g.n * g.p * g.q), taps = static_cast<double>(g.r * g.s);
  const auto channels = static_cast<double>(g.c / g.groups);
  const double clocks =
      pixels * static_cast<double>(g.k) / 4 * taps * larger(channels / 64, (13 + 1.7 * channels) / 128);
  const double bytes = static_cast<double>(g.n * g.h * g.w * g.c + g.n * g.p * g.q * g.k);
  return int8::kLaunch + int8::kLatency + taps * kTap +
         larger(clocks / (gpu.processors * gpu.clock), bytes / (kReachedOfMemory * gpu.memory));
}

// Filters that share a single channel make a matrix product of it after all. Few channels a group go where
// the cost is less: tiles spend their arithmetic on columns and depths that are not there.
inline Plan select(const Problem& problem, bool aligned, const Gpu& gpu) {
  Plan plan;
  plan.kernel = Kernel::depthwise;
  if (problem.geometry.groups > 1 && why_not(plan, problem, aligned) == nullptr) return plan;
  plan.kernel = Kernel::tiles;
  const bool as_vectors = vectors(problem, aligned);
  const int8::Extents size = extents(problem, as_vectors, aligned);
  plan.tiles = int8::choose(size, as_vectors, gpu);
  const Plan narrow{Kernel::grouped, {}};
  const bool pays = problem.geometry.groups > 1 && why_not(narrow, problem, aligned) == nullptr &&
                    grouped_seconds(problem, gpu) < int8::seconds(plan.tiles, size, gpu);
  return pays ? narrow : plan;
}

// What is going to be run; what cannot serve is refused with the reason.
Plan decide(const Problem& problem, bool aligned, const Plan* given, const Gpu& gpu);

}  // namespace cnnkernels::int8_conv
