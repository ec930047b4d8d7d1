// What conv2d's kernel for Hopper is told.
#pragma once

#include <vector>

#include "../../gemm/sm90/tile_schedule.h"
#include "../conv.h"

namespace cnnkernels::conv::sm90 {

using namespace gemm::sm90;  // what every operator's kernel for Hopper has

// The result where TMA does not store it, phases of a stride and outputs with a residual or an activation:
// elements from one pixel to the next.
struct ResultStrides {
  std::int64_t q = 0, p = 0, n = 0;
};

// Of a TileSchedule, in backward_weight: `other` is the error, `columns` are input channels, `chunks` column
// blocks that a tap takes, and stages are of pixels.
template <int Phases>
struct Arguments : TileSchedule<Phases> {
  TensorMap result;
  ResultStrides result_strides;
  Epilogue epilogue;      // none in backward_weight
  void* data = nullptr;   // where `result_strides` counts from
  std::int32_t rows = 0;  // of backward_weight's result: filters of a group
  std::int32_t span = kRowBytes;
  bool in_parts = false;  // backward_weight: fp32 sums of each part
  bool store_by_tma = true;
  std::uint8_t unused_here[to_next_map(sizeof(ResultStrides) + sizeof(Epilogue) + 18)] = {};
};

// Of one launch; a stride that has more takes several.
inline constexpr int kMostPhases = 16;

using ForwardArguments = Arguments<1>;
using BackwardInputArguments = Arguments<kMostPhases>;
using BackwardWeightArguments = Arguments<1>;

ForwardArguments forward_arguments(const Problem& problem, const Tile& tile, const void* input,
                                   const void* weight, const Epilogue& epilogue, void* output);
// One a launch.
std::vector<BackwardInputArguments> backward_input_arguments(const Problem& problem, const Tile& tile,
                                                             const void* grad_output, const void* weight,
                                                             const Epilogue& epilogue, void* grad_input);
// result: [part][filter][tap][channel] of fp32, or grad_weight itself where there is one part.
BackwardWeightArguments backward_weight_arguments(const Problem& problem, const Tile& tile, int parts,
                                                  const void* grad_output, const void* input, void* result);

}  // namespace cnnkernels::conv::sm90
