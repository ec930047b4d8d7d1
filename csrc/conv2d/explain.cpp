// What selection would do for a problem, step by step, for whoever asks: nothing is launched.
#include "directions.h"
#include "grouped_select.h"
#include "hopper_directions.h"
#include "hopper_select.h"
#include "packing.h"
#include "selection.h"

namespace cnnkernels::conv2d {

std::vector<Gemm> gemms(Direction direction, const Problem& problem) {
  switch (direction) {
    case Direction::forward:
      return {forward_gemm(problem, nullptr, nullptr, {}, nullptr)};
    case Direction::backward_input:
      return backward_input_gemms(problem, nullptr, nullptr, nullptr);
    case Direction::backward_weight:
      return {backward_weight_gemm(problem, nullptr, nullptr, nullptr)};
  }
  throw std::invalid_argument("conv2d: no such direction");
}

namespace {

// The kernel for groups of few channels goes first where it can serve, and nothing else was measured.
void explain_grouped(Explanation& all, Direction direction, const Problem& problem, const Machine& machine,
                     const Plan* tuned) {
  all.why_not_grouped = grouped::cannot_serve(direction, problem).value_or("");
  if (!all.why_not_grouped.empty()) return;
  const std::vector<grouped::Sweep> sweeps = grouped::sweeps(direction, problem, nullptr, nullptr, nullptr);
  all.grouped = grouped::candidates(sweeps, problem, machine);
  if (tuned != nullptr && tuned->engine == Engine::grouped &&
      grouped::cannot_serve(sweeps, problem, tile_of(*tuned)) == nullptr) {
    all.grouped.push_back({*tuned, nullptr, grouped::cost(*tuned, sweeps, problem, machine)});
    all.chosen_grouped = static_cast<int>(all.grouped.size()) - 1;
    all.tuned = true;
  }
  const bool of_hopper =
      tuned != nullptr && tuned->engine == Engine::wgmma && !hopper::why_not(direction, problem, machine);
  if (all.tuned || of_hopper) return;
  const std::size_t best = hopper::cheapest(all.grouped);
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

Explanation explain(Direction direction, const Problem& problem, const Machine& machine, const Plan* asked) {
  const Element element = element_of(problem);
  const auto packed = packed_for(direction, problem, asked, {}, machine);
  const Problem& seen = packed ? packed->problem : problem;
  const std::optional<Plan> inside = plan_inside(asked);
  const Plan* tuned = inside ? &*inside : nullptr;
  const int splits = tuned != nullptr ? tuned->splits : splits_for(direction, seen);
  Explanation all;
  const PackingCost judged = packing_cost(direction, problem, machine);
  all.judged_none = judged.none;
  all.judged_channels = judged.channels;
  all.judged_rows = judged.rows;
  if (packed) {
    const CopyCost copies = copy_cost(direction, problem, *packed, machine);
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
              select(direction, gemm, element, machine, splits, tuned)};
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
    return all;
  }
  explain_grouped(all, direction, seen, machine, tuned);
  for (Candidate& candidate : all.grouped) candidate.plan = with_packing(candidate.plan, all.packing);
  all.why_not_wgmma = hopper::why_not(direction, seen, machine).value_or("");
  if (!all.why_not_wgmma.empty()) return all;
  all.wgmma = hopper::candidates(direction, seen, machine);
  if (tuned != nullptr && tuned->engine == Engine::wgmma) {
    all.wgmma.push_back({*tuned, nullptr, hopper::cost(*tuned, direction, seen, machine)});
    all.tuned = true;
  }
  for (Candidate& candidate : all.wgmma) candidate.plan = with_packing(candidate.plan, all.packing);
  if (all.chosen_grouped >= 0 || (all.tuned && tuned->engine != Engine::wgmma)) return all;
  all.chosen_wgmma = static_cast<int>(all.tuned ? all.wgmma.size() - 1 : hopper::cheapest(all.wgmma));
  return all;
}

std::vector<Plan> plans(Direction direction, const Problem& problem) {
  const auto packed = packed_for(direction, problem, nullptr, {}, this_machine());
  const Problem& seen = packed ? packed->problem : problem;
  const Packing how = packed ? packed->how : Packing::none;
  if (!packed || packed->result != ResultBy::strided) {
    if (const auto whole = grouped::plan_for(direction, seen, nullptr)) return {with_packing(*whole, how)};
    if (const auto whole = hopper::plan_for(direction, seen, nullptr)) return {with_packing(*whole, how)};
  }
  std::vector<Plan> result;
  for (const Gemm& gemm : packed ? packed_gemms(direction, problem, *packed) : gemms(direction, problem))
    result.push_back(with_packing(decide(direction, seen, gemm, nullptr), how));
  return result;
}

}  // namespace cnnkernels::conv2d
