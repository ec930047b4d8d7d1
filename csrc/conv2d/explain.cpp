// What selection would do for a problem, step by step, for whoever asks: nothing is launched.
#include "directions.h"
#include "grouped_select.h"
#include "hopper_directions.h"
#include "hopper_select.h"
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

}  // namespace

Explanation explain(Direction direction, const Problem& problem, const Machine& machine, const Plan* tuned) {
  const Element element = element_of(problem);
  const int splits = tuned != nullptr ? tuned->splits : splits_for(direction, problem);
  Explanation all;
  for (const Gemm& gemm : gemms(direction, problem)) {
    Part part{gemm.rows(),
              gemm.columns(),
              gemm.depth(),
              gemm.groups,
              {},
              {},
              select(direction, gemm, element, machine, splits, tuned)};
    for (const Loader loader : {Loader::along_depth, Loader::along_side, Loader::elements}) {
      part.a.push_back({loader, why_not(loader, gemm.a, element)});
      part.b.push_back({loader, why_not(loader, gemm.b, element)});
    }
    all.tuned = part.selection.tuned;
    all.parts.push_back(part);
  }
  explain_grouped(all, direction, problem, machine, tuned);
  all.why_not_wgmma = hopper::why_not(direction, problem, machine).value_or("");
  if (!all.why_not_wgmma.empty()) return all;
  all.wgmma = hopper::candidates(direction, problem, machine);
  if (tuned != nullptr && tuned->engine == Engine::wgmma) {
    all.wgmma.push_back({*tuned, nullptr, hopper::cost(*tuned, direction, problem, machine)});
    all.tuned = true;
  }
  if (all.chosen_grouped >= 0 || (all.tuned && tuned->engine != Engine::wgmma)) return all;
  all.chosen_wgmma = static_cast<int>(all.tuned ? all.wgmma.size() - 1 : hopper::cheapest(all.wgmma));
  return all;
}

std::vector<Plan> plans(Direction direction, const Problem& problem) {
  if (const auto whole = grouped::plan_for(direction, problem, nullptr)) return {*whole};
  if (const auto whole = hopper::plan_for(direction, problem, nullptr)) return {*whole};
  std::vector<Plan> result;
  for (const Gemm& gemm : gemms(direction, problem))
    result.push_back(decide(direction, problem, gemm, nullptr));
  return result;
}

}  // namespace cnnkernels::conv2d
