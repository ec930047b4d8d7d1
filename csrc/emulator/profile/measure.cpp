#include "emulator/profile/measure.h"

#include "emulator/machine/state.h"
#include "emulator/memory/address.h"
#include "emulator/profile/meter.h"

namespace cnnkernels::emulator {

namespace {

enum class What : std::uint8_t { load, load_past_l1, store, atomic };

struct Addresses {
  std::uint64_t at[kLanes];
};

Addresses addresses_of(Warp& warp, const Instruction& instruction, Mask lanes) {
  Addresses addresses{};
  for_each_lane(lanes, [&](int lane) {
    addresses.at[lane] = warp.address(instruction, lane) + static_cast<std::uint64_t>(instruction.offset);
  });
  return addresses;
}

void measure(Warp& warp, const Instruction& instruction, Mask lanes, What what) {
  const Addresses addresses = addresses_of(warp, instruction, lanes);
  const auto bytes = static_cast<std::uint32_t>(bytes_of(instruction.type) * instruction.list_size);
  Meter& meter = *warp.cluster->meter;
  Mask shared = 0, global = 0;
  for_each_lane(lanes, [&](int lane) {
    const Space space = instruction.space;
    const std::uint64_t window = space == Space::generic ? window_of(addresses.at[lane]) : 0;
    const bool is_shared = space == Space::shared || space == Space::cluster || window == kSharedWindow;
    const bool is_global = space == Space::global || (space == Space::generic && window == 0);
    shared |= Mask{is_shared} << lane;
    global |= Mask{is_global} << lane;
  });
  meter.shared_access(warp, addresses.at, shared, bytes, what == What::atomic);
  if (what == What::load || what == What::load_past_l1)
    meter.global_read(warp, addresses.at, global, bytes, what == What::load ? Way::l1 : Way::l2);
  else
    meter.global_write(warp, addresses.at, global, bytes, what == What::atomic);
}

}  // namespace

void measure_load(Warp& warp, const Instruction& instruction, Mask lanes) {
  measure(warp, instruction, lanes, What::load);
}

void measure_load_past_l1(Warp& warp, const Instruction& instruction, Mask lanes) {
  measure(warp, instruction, lanes, What::load_past_l1);
}

void measure_store(Warp& warp, const Instruction& instruction, Mask lanes) {
  measure(warp, instruction, lanes, What::store);
}

void measure_atomic(Warp& warp, const Instruction& instruction, Mask lanes) {
  measure(warp, instruction, lanes, What::atomic);
}

void measure_rows(Warp& warp, const Instruction& instruction, Mask) {
  constexpr int kRowsOfMatrix = 8, kRowBytes = 16;
  const Mask rows = kAllLanes >> (kLanes - kRowsOfMatrix * instruction.list_size);
  warp.cluster->meter->shared_access(warp, addresses_of(warp, instruction, rows).at, rows, kRowBytes);
}

}  // namespace cnnkernels::emulator
