// Which convolutions of 16-bit types are run on packed copies of their tensors (pack.h), and how.
//
// cp.async and TMA copy runs of 4 bytes or more, the fast loaders runs of 16. NCHW windows, channels that are
// no multiple of 8 and unaligned pointers have none, and gathering 2 bytes at a time takes more instructions
// than multiplying. A copy reads and writes each small tensor once; then every fast path serves.
//
// Whether tensors are packed decides the order of a sum, so it is a function of the layer, never of the
// batch: the model of cost.h is asked what gathering and packing would take at one batch on one GPU, an H200
// for every Hopper and an A100 for all others. Larger batches are packed slice by slice, so that the copies
// stay within the workspace limit.
#pragma once

#include <optional>

#include "../conv.h"
#include "../directions.h"
#include "pack.h"

namespace cnnkernels::conv {

// The problem that remains when tensors are packed so: NHWC, channels padded, and with packed rows a filter
// of one column over the windows' columns.
Problem packed_problem(const Problem& problem, Packing how);

// Why a problem cannot be packed so; null where it can.
const char* why_not(Direction direction, const Problem& problem, Packing how);

// What the model took for gathering and for packing, seconds.
struct PackingCost {
  Packing how = Packing::none;
  double none = 0, channels = 0, rows = 0;  // 0: not considered
};
PackingCost packing_cost(Direction direction, const Problem& problem, const Gpu& gpu);

enum class ResultBy {
  in_place,  // a packed result lies as the tensor does
  strided,   // mma.sync stores wherever its offsets lead
  unpacked,  // a packed result is copied
};

// How a problem is run on packed tensors.
struct Packed {
  Packing how = Packing::channels;
  Problem problem;                   // all of it, packed
  bool first = true, second = true;  // which operands are copied
  bool residual = false;
  ResultBy result = ResultBy::in_place;
  std::int64_t images = 0;  // of a slice
  int slices = 1;
  int splits = 1;  // of backward_weight in more than one slice: parts of each
  // Where a slice's copies lie in the workspace, bytes.
  std::int64_t at_first = 0, at_second = 0, at_result = 0, at_residual = 0, at_vectors = 0, end = 0;
};

// nullopt: tensors are taken as they lie. std::invalid_argument where a binding plan asks for what cannot be.
std::optional<Packed> packed_for(Direction direction, const Problem& problem, const Plan* asked,
                                 const Tensors& tensors, const Gpu& gpu);

// The problem, packed or not, of one slice: `images` from image `first` on. An image's elements of a tensor
// times `first` lead to it.
inline Problem slice_of(Problem problem, const Packed& packed, std::int64_t first) {
  problem.geometry.n = std::min(packed.images, problem.geometry.n - first);
  return problem;
}

// `bytes` ahead of a pointer; null stays null.
inline void* ahead(const void* pointer, std::int64_t bytes) {
  return pointer == nullptr ? nullptr
                            : const_cast<std::byte*>(static_cast<const std::byte*>(pointer)) + bytes;
}

// The images of the input, or of the output, packed as the problem's; the filter likewise.
Copy pack_input(const Problem& part, Packing how, const void* from, void* to);
Copy pack_output(const Problem& part, const void* from, void* to);
Copy pack_weight(const Problem& problem, Packing how, const void* from, void* to);

// The epilogue of a slice's packed result: its residual, and with the first slice its vectors, are copied
// too.
Epilogue pack_epilogue(Direction direction, const Problem& part, const Packed& packed, Epilogue epilogue,
                       bool first_slice, void* workspace, Copies& copies);

// The plan to ask for inside: the one that was asked for, of packed tensors.
inline std::optional<Plan> plan_inside(const Plan* asked) {
  if (asked == nullptr) return std::nullopt;
  Plan plan = *asked;
  plan.packing = Packing::none;
  return plan;
}

// Throws std::invalid_argument for a workspace that is missing or not aligned to 16 bytes.
void check_workspace(const void* workspace);

// The implicit GEMMs of a problem so packed, with null pointers.
std::vector<Gemm> packed_gemms(Direction direction, const Problem& problem, const Packed& packed);

// Bytes that the copies of all slices read and write, and their launches.
struct CopyCost {
  double bytes = 0, seconds = 0;
  int launches = 0;
};
CopyCost copy_cost(Direction direction, const Problem& problem, const Packed& packed, const Gpu& gpu);

}  // namespace cnnkernels::conv
