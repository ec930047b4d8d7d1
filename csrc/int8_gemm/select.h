// Which kernel serves a problem: pure functions on the host, each step of which can be looked at.
//
//   problem -> how its operands can be read -> candidates -> feasible, or why not -> cost -> choice
#pragma once

#include <string>
#include <vector>

#include "../common/int8_plan.h"

namespace cnnkernels::int8_gemm {

using int8::Access;

// Element (i, j) lies at data + i * row_stride + j * column_stride.
struct Matrix {
  const void* data = nullptr;
  std::int64_t row_stride = 0, column_stride = 0;
};

struct Problem {
  std::int64_t m = 0, n = 0, k = 0;
  Matrix a, b;              // [m, k] and [k, n]
  bool unsigned_a = false;  // b is int8
};

// tiles: the implicit GEMM of common/int8_product.h. stream_weights: few rows of a, b once through registers.
enum class Kernel : int { tiles, stream_weights };

inline constexpr int kMostStreamedRows = 16;
inline constexpr int kMostStreamingWarps = 16;  // of a block, which share the reduction
inline constexpr int kStreamedBytes = 128;      // of each column that a warp takes at a time

struct Plan {
  Kernel kernel = Kernel::tiles;
  int8::Plan tiles;                   // of tiles
  int stream_columns = 8, warps = 1;  // of stream_weights, of a block: 8 or 32 columns

  bool operator==(const Plan&) const = default;
};

inline std::string describe(const Plan& plan) {
  if (plan.kernel == Kernel::tiles) return int8::describe(plan.tiles);
  return "stream weights, " + std::to_string(plan.stream_columns) + " columns, " +
         std::to_string(plan.warps) + " warps";
}

// The fastest way an operand can be read. `side`: m of a, n of b.
inline Access access_of(const void* data, std::int64_t side, std::int64_t side_stride, std::int64_t depth,
                        std::int64_t depth_stride) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % int8::kVectorBytes == 0 &&
                       (side == 1 || side_stride % int8::kVectorBytes == 0) &&
                       depth % int8::kVectorBytes == 0;
  if (depth_stride == 1) return aligned ? Access::vectors : Access::along_depth;
  return side_stride == 1 ? Access::along_side : Access::bytes;
}
inline Access access_of_a(const Problem& p) {
  return access_of(p.a.data, p.m, p.a.row_stride, p.k, p.a.column_stride);
}
inline Access access_of_b(const Problem& p) {
  return access_of(p.b.data, p.n, p.b.column_stride, p.k, p.b.row_stride);
}
inline bool vectors(const Problem& p) {
  return access_of_a(p) == Access::vectors && access_of_b(p) == Access::vectors;
}

inline int8::Extents extents(const Problem& p, bool vectors) {
  const int unit = vectors ? int8::kVectorBytes : int8::kWordBytes;
  return {p.m, p.n, 1, ceil_div(ceil_div(p.k, unit) * unit, int8::kStageBytes)};
}

// Why a plan cannot serve; null where it can.
inline const char* why_not(const Plan& plan, const Problem& p) {
  constexpr std::int64_t kMost = std::int64_t(1) << 31;
  if (p.m >= kMost || p.n >= kMost) return "more than 2^31 rows or columns";
  if (plan.kernel == Kernel::tiles)
    return int8::why_not(plan.tiles, extents(p, plan.tiles.vectors), vectors(p));
  if (p.m > kMostStreamedRows) return "more than 16 rows";
  if (!vectors(p)) return "an operand is not contiguous along the reduction and aligned to 16 bytes";
  if (plan.stream_columns != 8 && plan.stream_columns != 32) return "a block streams 8 or 32 columns";
  if (plan.warps < 1 || plan.warps > kMostStreamingWarps) return "a block streams with 1 to 16 warps";
  return nullptr;
}

// stream_weights' plan: wide blocks, which read a less often, where they fill the GPU.
inline Plan streaming(const Problem& p, const Machine& machine) {
  Plan plan;
  plan.kernel = Kernel::stream_weights;
  plan.stream_columns = ceil_div(p.n, 32) >= machine.processors ? 32 : 8;
  while (plan.warps < kMostStreamingWarps && plan.warps * kStreamedBytes < p.k) plan.warps *= 2;
  return plan;
}

// Few rows are streamed wherever that can be, since then every byte of b is read once; else the cheapest
// tile.
inline Plan select(const Problem& p, const Machine& machine) {
  const Plan few = streaming(p, machine);
  if (why_not(few, p) == nullptr) return few;
  Plan plan;
  plan.tiles = int8::choose(extents(p, vectors(p)), vectors(p), machine);
  return plan;
}

// A plan that came from outside is refused, with the reason, where it cannot serve.
inline Plan decide(const Problem& p, const Plan* plan, const Machine& machine) {
  if (plan == nullptr) return select(p, machine);
  if (const char* why = why_not(*plan, p))
    throw std::invalid_argument("int8_gemm: the plan '" + describe(*plan) +
                                "' cannot serve this problem: " + why);
  return *plan;
}

struct Candidate {
  Plan plan;
  const char* why_not;  // null: it can serve
  double seconds;       // what the model says, 0 where there is none
};

// Every tile, unsplit and as the choice would split it, and the streaming kernel.
inline std::vector<Candidate> candidates(const Problem& p, const Machine& machine) {
  std::vector<Candidate> all;
  const Plan few = streaming(p, machine);
  all.push_back({few, why_not(few, p), 0});
  for (const bool as_vectors : {true, false}) {
    const int8::Extents size = extents(p, as_vectors);
    for (int tile = 0; tile < int8::kTileCount; ++tile) {
      Plan plan;
      plan.tiles = {as_vectors, tile, 1};
      if (!as_vectors && tile != int8::kWordsTile) continue;
      all.push_back({plan, why_not(plan, p), int8::seconds(plan.tiles, size, machine)});
    }
  }
  const Plan chosen = select(p, machine);
  if (chosen.tiles.splits > 1)
    all.push_back({chosen, nullptr, int8::seconds(chosen.tiles, extents(p, chosen.tiles.vectors), machine)});
  return all;
}

}  // namespace cnnkernels::int8_gemm
