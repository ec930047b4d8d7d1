// What selection finds, in plain numbers: candidates, why some cannot serve, what the others should cost, and
// the choice. select.h decides; explain() shows every step.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "../common/gpu.h"
#include "conv.h"

namespace cnnkernels::conv {

// What the model of cost.h says of a plan on one GPU.
struct Cost {
  std::int64_t tiles = 0;  // blocks of the launch
  double waves = 0;        // of as many blocks as the GPU holds
  double useful = 0;       // share of the multiply-adds that are not padding of tiles
  // Seconds: the tiles' arithmetic, operands, filling and writing on the busiest SM, and the memory's.
  double arithmetic = 0, operands = 0, filling = 0, writing = 0, memory = 0;
  double seconds = 0;            // of the whole, what ranks plans
  const char* limit = "tensor";  // of arithmetic, what takes longest: tensor, shared or issue
};

struct Candidate {
  Plan plan;
  const char* why_not = nullptr;  // null: it can serve, and has a cost
  Cost cost;
};

// The first of the cheapest that can serve; where none can, one that cannot.
inline std::size_t cheapest(const std::vector<Candidate>& candidates) {
  const auto less = [](const Candidate& a, const Candidate& b) {
    if ((a.why_not == nullptr) != (b.why_not == nullptr)) return a.why_not == nullptr;
    return a.cost.seconds < b.cost.seconds;
  };
  return static_cast<std::size_t>(std::min_element(candidates.begin(), candidates.end(), less) -
                                  candidates.begin());
}

struct Selection {
  static constexpr int kMost = 2 * kTileCount + 1;
  std::array<Candidate, kMost> candidates;
  int count = 0;
  int chosen = -1;     // among the candidates
  bool tuned = false;  // the choice is a measured one, not the model's

  void add(const Candidate& candidate) { candidates[count++] = candidate; }
  const Plan& plan() const { return candidates[chosen].plan; }
};

// One implicit GEMM of a problem: its size, each loader of A and B with why it cannot serve (null: it can),
// and what was selected for it.
struct Part {
  std::int64_t rows, columns, depth, groups;
  std::vector<std::pair<Loader, const char*>> a, b;
  Selection selection;
};

// A problem is one implicit GEMM, or in backward_input one for each phase of the stride. Hopper's kernel, and
// that of grouped.h before it, serve a problem as a whole, with no part: they have candidates of their own.
struct Explanation {
  // How tensors are packed first, what the rule weighed, and what the copies take here. Parts and wgmma are
  // then those of the packed tensors.
  Packing packing = Packing::none;
  std::string why_packed;
  double judged_none = 0, judged_channels = 0,
         judged_rows = 0;  // seconds at the rule's batch; 0: not weighed
  double copy_bytes = 0, copy_seconds = 0;
  int copy_launches = 0;
  std::vector<Part> parts;
  std::vector<Candidate> grouped;
  std::string why_not_grouped;  // empty: it serves
  int chosen_grouped = -1;      // among `grouped`; -1: it does not serve, or another plan was measured
  std::vector<Candidate> wgmma;
  std::string why_not_wgmma;  // empty: it serves
  int chosen_wgmma = -1;      // among `wgmma`; -1: the parts are served each by its own selection
  bool tuned = false;
};

// For tensors aligned to 16 bytes. `tuned`: a measured plan to prefer where it can serve, or null.
Explanation explain(Direction direction, const Problem& problem, const Gpu& gpu, const Plan* tuned = nullptr);

// Why the border that a padding mode asks for must be copied before forward or backward_weight; empty where
// they read it through the index, as they do if their kernels can and it pays. A function of the layer and,
// as an unaligned tensor cannot be read that way, of the two pointers.
std::string why_copy_border(Direction direction, const Problem& problem, const Gpu& gpu,
                            const void* first = nullptr, const void* second = nullptr);

// What the launchers would do here and now for tensors aligned to 16 bytes.
std::vector<Plan> plans(Direction direction, const Problem& problem);

}  // namespace cnnkernels::conv
