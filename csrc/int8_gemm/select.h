// Which kernel serves a problem: pure functions on the host, each step of which can be looked at.
//
//   problem -> how its operands can be read -> candidates -> feasible, or why not -> cost -> choice
#pragma once

#include <vector>

#include "../int8/plan.h"

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

// tiles: the implicit GEMM of int8/product.h. stream_weights: few rows of a, b once through registers.
enum class Kernel : int { tiles, stream_weights };

inline constexpr int kMostStreamedRows = 16;
inline constexpr int kMostStreamingWarps = 16;  // of a block, which share the reduction
inline constexpr int kStreamedBytes = 128;      // of each column that a warp takes at a time

// Operands that tensor cores cannot read as vectors may be copied first, so that they can.
struct Plan {
  Kernel kernel = Kernel::tiles;
  int8::Plan tiles;  // of tiles
  bool pack_a = false, pack_b = false;
  int stream_columns = 8, warps = 1;  // of stream_weights, of a block: 8 or 32 columns

  bool operator==(const Plan&) const = default;
};

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

inline std::int64_t padded_depth(std::int64_t k) {
  return ceil_div(k, int8::kVectorBytes) * int8::kVectorBytes;
}

// The problem that is left when operands were copied to a and b.
inline Problem packed(const Problem& p, const Plan& plan, const void* a, const void* b) {
  Problem left = p;
  if (plan.pack_a || plan.pack_b) left.k = padded_depth(p.k);
  if (plan.pack_a) left.a = {a, left.k, 1};
  if (plan.pack_b) left.b = {b, 1, left.k};
  return left;
}
inline Problem packed(const Problem& p, const Plan& plan) { return packed(p, plan, nullptr, nullptr); }

// Bytes of the copies.
inline std::int64_t packed_bytes(const Problem& p, const Plan& plan) {
  return padded_depth(p.k) * ((plan.pack_a ? p.m : 0) + (plan.pack_b ? p.n : 0));
}

// Why TMA cannot bring an operand; null where it can.
inline const char* not_by_tma(const void* data, std::int64_t side, std::int64_t side_stride,
                              std::int64_t depth, std::int64_t depth_stride) {
  constexpr std::int64_t kMostSides = (std::int64_t(1) << 31) - 1024, kMostStride = std::int64_t(1) << 40;
  if (side > kMostSides) return "more than 2^31 rows or columns";
  if (depth_stride != 1 && depth > 1) return "TMA copies runs of the reduction, and an operand has none";
  if (reinterpret_cast<std::uintptr_t>(data) % int8::kVectorBytes != 0)
    return "TMA needs operands that begin at a multiple of 16 bytes";
  if (side > 1 &&
      (side_stride % int8::kVectorBytes != 0 || side_stride < depth || side_stride >= kMostStride))
    return "TMA needs rows of a and columns of b apart, at multiples of 16 bytes";
  return nullptr;
}
inline const char* not_by_tma(const Problem& p) {
  const char* const of_a = not_by_tma(p.a.data, p.m, p.a.row_stride, p.k, p.a.column_stride);
  return of_a != nullptr ? of_a : not_by_tma(p.b.data, p.n, p.b.column_stride, p.k, p.b.row_stride);
}

inline int8::Extents extents(const Problem& p, bool vectors) {
  const int unit = vectors ? int8::kVectorBytes : int8::kWordBytes;
  return {p.m,
          p.n,
          1,
          ceil_div(ceil_div(p.k, unit) * unit, int8::kStageBytes),
          not_by_tma(p),
          gemm::sm90::stages_of(1, p.k, gemm::sm90::kRowBytes)};
}

// Why a plan cannot serve; null where it can.
inline const char* why_not(const Plan& plan, const Problem& p) {
  constexpr std::int64_t kMost = std::int64_t(1) << 31;
  if (p.m >= kMost || p.n >= kMost) return "more than 2^31 rows or columns";
  if (packed_bytes(p, plan) > int8::kWorkspaceLimit) return "copied operands would take more than 64 MB";
  const Problem left = packed(p, plan);
  if (left.k != p.k && !(plan.pack_a && plan.pack_b)) return "a copy's padding needs the other operand's";
  if (plan.kernel == Kernel::tiles)
    return int8::why_not(plan.tiles, extents(left, plan.tiles.vectors), vectors(left));
  if (p.m > kMostStreamedRows) return "more than 16 rows";
  if (!vectors(left)) return "an operand is not contiguous along the reduction and aligned to 16 bytes";
  if (plan.stream_columns != 8 && plan.stream_columns != 32) return "a block streams 8 or 32 columns";
  if (plan.warps < 1 || plan.warps > kMostStreamingWarps) return "a block streams with 1 to 16 warps";
  return nullptr;
}

// stream_weights' plan: wide blocks, which read a less often, where they fill the GPU.
inline Plan streaming(const Problem& p, const Gpu& gpu) {
  Plan plan;
  plan.kernel = Kernel::stream_weights;
  plan.pack_a = access_of_a(p) != Access::vectors && access_of_b(p) == Access::vectors;  // a is the small one
  plan.stream_columns = ceil_div(p.n, 32) >= gpu.processors ? 32 : 8;
  while (plan.warps < kMostStreamingWarps && plan.warps * kStreamedBytes < p.k) plan.warps *= 2;
  return plan;
}

// Seconds the tiles and copies of a plan should take (int8::seconds).
inline double seconds(const Plan& plan, const Problem& p, const Gpu& gpu) {
  constexpr double kLaunch = 3e-6;
  const double bytes = static_cast<double>(packed_bytes(p, plan));
  return int8::seconds(plan.tiles, extents(packed(p, plan), plan.tiles.vectors), gpu) +
         (plan.pack_a + plan.pack_b) * kLaunch + 2 * bytes / (kReachedOfMemory * gpu.memory);
}

// The cheapest tile, for operands as they lie or for copies of those that do not come as vectors.
inline Plan tiled(const Problem& p, bool pack, const Gpu& gpu) {
  Plan plan;
  plan.pack_a = pack && access_of_a(p) != Access::vectors;
  plan.pack_b = pack && access_of_b(p) != Access::vectors;
  const Problem left = packed(p, plan);
  plan.tiles = int8::choose(extents(left, vectors(left)), vectors(left), gpu);
  return plan;
}

// Few rows are streamed wherever that can be, since then every byte of b is read once; else the cheapest
// tile.
inline Plan select(const Problem& p, const Gpu& gpu) {
  const Plan few = streaming(p, gpu);
  if (why_not(few, p) == nullptr) return few;
  const Plan plain = tiled(p, false, gpu), copied = tiled(p, true, gpu);
  const bool pays = why_not(copied, p) == nullptr && seconds(copied, p, gpu) < seconds(plain, p, gpu);
  return pays ? copied : plain;
}

// A plan that came from outside is refused, with the reason, where it cannot serve.
Plan decide(const Problem& p, const Plan* plan, const Gpu& gpu);

struct Candidate {
  Plan plan;
  const char* why_not;  // null: it can serve
  double seconds;       // what the model says, 0 where there is none
};

// Every tile, unsplit, the choices for operands as they lie and for copies, and the streaming kernel.
inline std::vector<Candidate> candidates(const Problem& p, const Gpu& gpu) {
  std::vector<Candidate> all;
  const auto add = [&](const Plan& plan) {
    for (const Candidate& other : all)
      if (other.plan == plan) return;
    const bool wgmma = plan.kernel == Kernel::tiles && plan.tiles.wgmma;
    const char* const no_wgmma = wgmma ? why_not_wgmma(gpu) : nullptr;
    const char* why = no_wgmma != nullptr ? no_wgmma : why_not(plan, p);
    all.push_back({plan, why, plan.kernel == Kernel::tiles ? seconds(plan, p, gpu) : 0});
  };
  add(streaming(p, gpu));
  for (const bool as_vectors : {true, false}) {
    for (int tile = 0; tile < int8::kTileCount; ++tile) {
      Plan plan;
      plan.tiles = {as_vectors, tile, 1};
      if (as_vectors || tile == int8::kWordsTile) add(plan);
    }
  }
  for (int tile = 0; tile < int8::kSm90TileCount; ++tile) {
    Plan plan;
    plan.tiles = {false, tile, 1, true};
    add(plan);
  }
  add(tiled(p, false, gpu));
  add(tiled(p, true, gpu));
  return all;
}

}  // namespace cnnkernels::int8_gemm
