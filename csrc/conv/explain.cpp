// What selection would do for a problem, step by step, for whoever asks: nothing is launched.
#include "directions.h"
#include "grouped/select.h"
#include "sm90/directions.h"
#include "sm90/select.h"
#include "packing/packing.h"
#include "selection.h"
#include "views.h"

namespace cnnkernels::conv {

std::vector<Gemm> gemms(Direction direction, const Problem& problem) {
  switch (direction) {
    case Direction::forward:
      return {forward_gemm(problem, nullptr, nullptr, {}, nullptr)};
    case Direction::backward_input:
      return backward_input_gemms(problem, nullptr, nullptr, {}, nullptr);
    case Direction::backward_weight:
      return {backward_weight_gemm(problem, nullptr, nullptr, nullptr)};
  }
  throw std::invalid_argument("conv2d: no such direction");
}

namespace {

// The kernel for groups of few channels goes first where it can serve, and nothing else was measured.
void explain_grouped(Explanation& all, Direction direction, const Problem& problem, const Gpu& gpu,
                     const Plan* tuned) {
  all.why_not_grouped = grouped::cannot_serve(direction, problem).value_or("");
  if (all.why_not_grouped.empty() &&
      gave_way(Yielding::conv_grouped, static_cast<int>(direction), problem.dtype))
    all.why_not_grouped = kGaveWay;
  if (!all.why_not_grouped.empty()) return;
  all.grouped = grouped::candidates(direction, problem, gpu);
  if (tuned != nullptr && tuned->engine == Engine::grouped &&
      grouped::cannot_serve(direction, problem, tile_of(*tuned)) == nullptr) {
    all.grouped.push_back({*tuned, nullptr, grouped::cost(*tuned, direction, problem, gpu)});
    all.chosen_grouped = static_cast<int>(all.grouped.size()) - 1;
    all.tuned = true;
  }
  const bool of_sm90 =
      tuned != nullptr && tuned->engine == Engine::wgmma && !sm90::why_not(direction, problem, gpu);
  if (all.tuned || of_sm90) return;
  const std::size_t best = cheapest(all.grouped);
  if (all.grouped[best].why_not == nullptr) all.chosen_grouped = static_cast<int>(best);
}

// Why the tensors of a problem, as they lie, would be gathered.
std::string why_gathered(const Gemm& gemm, const Element& element) {
  std::string why;
  for (const auto& [name, operand] : {std::pair("A", &gemm.a), {"B", &gemm.b}}) {
    if (loader_for(*operand, element) != Loader::elements) continue;
    why += why.empty() ? "" : "; ";
    why += std::string(name) + ": " + why_not(Loader::along_depth, *operand, element);
  }
  return why;
}

// What the launchers are told once tensors are packed, as a plan that asks for it from outside.
Plan with_packing(Plan plan, Packing how) {
  plan.packing = how;
  return plan;
}

}  // namespace

Explanation explain(Direction direction, const Problem& problem, const Gpu& gpu, const Plan* asked) {
  const Element element = element_of(problem);
  const auto packed = packed_for(direction, problem, asked, {}, gpu);
  const Problem& seen = packed ? packed->problem : problem;
  const std::optional<Plan> inside = plan_inside(asked);
  const Plan* tuned = inside ? &*inside : nullptr;
  const int splits = tuned != nullptr ? tuned->splits : splits_for(direction, seen);
  Explanation all;
  const PackingCost judged = packing_cost(direction, problem, gpu);
  all.judged_none = judged.none;
  all.judged_channels = judged.channels;
  all.judged_rows = judged.rows;
  if (packed) {
    const CopyCost copies = copy_cost(direction, problem, *packed, gpu);
    all.packing = packed->how;
    all.why_packed = why_gathered(gemms(direction, problem).front(), element);
    all.copy_bytes = copies.bytes;
    all.copy_seconds = copies.seconds;
    all.copy_launches = copies.launches;
  }
  for (const Gemm& gemm : packed ? packed_gemms(direction, problem, *packed) : gemms(direction, problem)) {
    Part part{gemm.rows(),
              gemm.columns(),
              gemm.depth(),
              gemm.groups,
              {},
              {},
              select(direction, gemm, element, gpu, splits, tuned)};
    for (Candidate& candidate : part.selection.candidates)
      candidate.plan = with_packing(candidate.plan, all.packing);
    for (const Loader loader : {Loader::along_depth, Loader::along_side, Loader::elements}) {
      part.a.push_back({loader, why_not(loader, gemm.a, element)});
      part.b.push_back({loader, why_not(loader, gemm.b, element)});
    }
    all.tuned = part.selection.tuned;
    all.parts.push_back(part);
  }
  if (packed && packed->result == ResultBy::strided) {
    all.why_not_wgmma = all.why_not_grouped =
        "the result is not stored as it stores, and copying it pays for longer sums on Hopper alone";
    if (const char* why = why_not_wgmma(gpu)) all.why_not_wgmma = why;
    return all;
  }
  explain_grouped(all, direction, seen, gpu, tuned);
  for (Candidate& candidate : all.grouped) candidate.plan = with_packing(candidate.plan, all.packing);
  all.why_not_wgmma = sm90::why_not(direction, seen, gpu).value_or("");
  if (!all.why_not_wgmma.empty()) return all;
  all.wgmma = sm90::candidates(direction, seen, gpu);
  if (tuned != nullptr && tuned->engine == Engine::wgmma) {
    all.wgmma.push_back({*tuned, nullptr, sm90::cost(*tuned, direction, seen, gpu)});
    all.tuned = true;
  }
  for (Candidate& candidate : all.wgmma) candidate.plan = with_packing(candidate.plan, all.packing);
  if (all.chosen_grouped >= 0 || (all.tuned && tuned->engine != Engine::wgmma)) return all;
  all.chosen_wgmma = static_cast<int>(all.tuned ? all.wgmma.size() - 1 : cheapest(all.wgmma));
  return all;
}

namespace {

// Would Hopper's kernel, which needs a copy, be done sooner than mma.sync without one? For each element of
// the image a copy reads and writes one, and mma.sync takes longer for what is multiplied by it. Neither
// depends on the batch. Every Hopper answers as an H200 would, as the bits are not the same.
bool copy_pays(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  const Gpu& gpu = gpu_named("h200");
  const Element element = element_of(problem);
  const double multiply_adds =
      static_cast<double>(g.k / g.groups) * g.r * g.s * g.p * g.q / (static_cast<double>(g.h) * g.w);
  const double rate = kReachedOfPeak * (element.bytes() == 4 ? gpu.tensor_tf32 : gpu.tensor16);
  const double longer = 2 * multiply_adds / rate * (1 / gpu.mma_share - 1);
  return longer > 2 * element.bytes() / (kReachedOfMemory * gpu.memory);
}

}  // namespace

std::string why_copy_border(Direction direction, const Problem& problem, const Gpu& gpu, const void* first,
                            const void* second) {
  const char* why;
  border_of(problem, why);
  if (why != nullptr) return why;
  Problem padded = problem;
  ConvGeometry& g = padded.geometry;
  g.padding_mode = PaddingMode::zeros;
  g.h = (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h + 1;
  g.w = (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w + 1;
  g.pad_h = g.pad_w = 0;
  if (!grouped::cannot_serve(direction, padded))
    return "the kernel for groups of few channels, which pads with zeros alone, makes up for it";
  if (!sm90::why_not(direction, padded, gpu) && copy_pays(problem))
    return "Hopper's kernel, whose TMA pads with zeros alone, makes up for it";
  const Gemm gemm = direction == Direction::forward ? forward_gemm(problem, first, second, {}, nullptr)
                                                    : backward_weight_gemm(problem, first, second, nullptr);
  const Selection able = candidates(direction, gemm, element_of(problem), 1);
  for (int i = 0; i < able.count; ++i)
    if (able.candidates[i].why_not == nullptr) return "";
  return "no 16 bytes of it run along channels, or a tensor is not aligned to them";
}

std::vector<Plan> plans(Direction direction, const Problem& problem) {
  const auto packed = packed_for(direction, problem, nullptr, {}, this_gpu());
  const Problem& seen = packed ? packed->problem : problem;
  const Packing how = packed ? packed->how : Packing::none;
  if (!packed || packed->result != ResultBy::strided) {
    if (const auto whole = grouped::plan_for(direction, seen, nullptr)) return {with_packing(*whole, how)};
    if (const auto whole = sm90::plan_for(direction, seen, nullptr)) return {with_packing(*whole, how)};
  }
  std::vector<Plan> result;
  for (const Gemm& gemm : packed ? packed_gemms(direction, problem, *packed) : gemms(direction, problem))
    result.push_back(with_packing(decide(direction, seen, gemm, nullptr), how));
  return result;
}

}  // namespace cnnkernels::conv
