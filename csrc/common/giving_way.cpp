#include "giving_way.h"
#include "gpu.h"

#include <atomic>
#include <stdexcept>

namespace cnnkernels {

namespace {

constexpr int kEngines = 6, kDirections = 3, kTypes = 9;
std::atomic<bool> gone[kMostDevices][kEngines][kDirections][kTypes];
std::atomic<bool> any;  // has one ever failed? Else nobody asks which GPU this is

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

std::atomic<bool>& place(int device, Yielding engine, int direction, DType dtype) {
  return gone[device][static_cast<int>(engine)][direction][static_cast<int>(dtype)];
}

}  // namespace

bool gave_way(Yielding engine, int direction, DType dtype) {
  return any.load(std::memory_order_relaxed) && place(this_device(), engine, direction, dtype).load();
}

void give_way(const std::string& word, const std::string& direction, const std::string& engine, DType dtype,
              int device, bool gives) {
  if (device < 0 || device >= kMostDevices)
    throw std::out_of_range("no GPU has the number " + std::to_string(device));
  for (const Named& named : kNamed) {
    if (word != named.word || engine != named.engine) continue;
    for (int i = 0; i < kDirections; ++i)
      if (direction == kOrder[i]) {
        place(device, named.yielding, i, dtype).store(gives);
        if (gives) any.store(true);
        return;
      }
  }
  throw std::invalid_argument("no engine behind " + word + " " + direction + " " + engine);
}

}  // namespace cnnkernels
