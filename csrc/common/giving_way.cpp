#include "giving_way.h"

#include <atomic>
#include <stdexcept>

namespace cnnkernels {

namespace {

constexpr int kEngines = 6, kDirections = 3, kTypes = 9;
std::atomic<bool> gone[kEngines][kDirections][kTypes];

struct Named {
  const char *word, *engine;
  Yielding yielding;
};
constexpr Named kNamed[] = {
    {"conv", "wgmma", Yielding::conv_wgmma},
    {"conv", "grouped", Yielding::conv_grouped},
    {"conv", "packed", Yielding::conv_packed},
    {"depthwise_conv", "band", Yielding::depthwise_band},
    {"depthwise_separable_conv", "wgmma", Yielding::pair_wgmma},
    {"int8_gemm", "wgmma", Yielding::int8_wgmma},  // one kernel, whichever operator's it is
    {"int8_conv", "wgmma", Yielding::int8_wgmma},
};
constexpr const char* kOrder[] = {"forward", "backward_input", "backward_weight"};

std::atomic<bool>& place(Yielding engine, int direction, DType dtype) {
  return gone[static_cast<int>(engine)][direction][static_cast<int>(dtype)];
}

}  // namespace

bool gave_way(Yielding engine, int direction, DType dtype) {
  return place(engine, direction, dtype).load(std::memory_order_relaxed);
}

void give_way(const std::string& word, const std::string& direction, const std::string& engine, DType dtype,
              bool gives) {
  for (const Named& named : kNamed) {
    if (word != named.word || engine != named.engine) continue;
    for (int i = 0; i < kDirections; ++i)
      if (direction == kOrder[i]) return place(named.yielding, i, dtype).store(gives);
  }
  throw std::invalid_argument("no engine behind " + word + " " + direction + " " + engine);
}

}  // namespace cnnkernels
