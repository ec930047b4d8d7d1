// What selection would do for a problem, step by step, for whoever asks: nothing is launched.
#include "directions.h"
#include "selection.h"

namespace cnnkernels::conv2d {

std::vector<Gemm> gemms(Direction direction, const Problem& problem) {
  switch (direction) {
    case Direction::forward:
      return {forward_gemm(problem, nullptr, nullptr, nullptr, nullptr)};
    case Direction::backward_input:
      return backward_input_gemms(problem, nullptr, nullptr, nullptr);
    case Direction::backward_weight:
      return {backward_weight_gemm(problem, nullptr, nullptr, nullptr)};
  }
  throw std::invalid_argument("conv2d: no such direction");
}

std::vector<Explanation> explain(Direction direction, const Problem& problem, const Machine& machine,
                                 const Plan* tuned) {
  const Element element = element_of(problem);
  std::vector<Explanation> phases;
  for (const Gemm& gemm : gemms(direction, problem)) {
    Explanation phase{gemm.rows(),
                      gemm.columns(),
                      gemm.depth(),
                      gemm.groups,
                      {},
                      {},
                      select(direction, gemm, element, machine, tuned)};
    for (const Loader loader : {Loader::along_depth, Loader::along_side, Loader::elements}) {
      phase.a.push_back({loader, why_not(loader, gemm.a, element)});
      phase.b.push_back({loader, why_not(loader, gemm.b, element)});
    }
    phases.push_back(phase);
  }
  return phases;
}

std::vector<Plan> plans(Direction direction, const Problem& problem) {
  std::vector<Plan> result;
  for (const Gemm& gemm : gemms(direction, problem))
    result.push_back(select(direction, gemm, element_of(problem), this_machine()).plan());
  return result;
}

}  // namespace cnnkernels::conv2d
