// Which registers may hold an accumulator while its product is in flight: the product's own, and all that is
// computed of them, by way of registers and of local memory. Others need not be looked at when it is done.
#include <algorithm>
#include <utility>

#include "emulator/ptx/kernel_builder.h"

namespace cnnkernels::emulator {

void spread_accumulators(Kernel& kernel, const std::vector<Decoder::Uses>& uses) {
  if (kernel.accumulators.empty()) return;
  std::vector<bool> holds(kernel.image.size() / kLanes);
  for (const Slot slot : kernel.accumulators) holds[slot] = true;
  const auto is_held = [&](Slot slot) { return slot >= 0 && holds[slot]; };  // predicates are below 0
  const auto is_local = [&](std::size_t place, std::string_view verb) {
    const std::string_view opcode = kernel.opcodes[place];
    return opcode.starts_with(verb) && (opcode.substr(2, 6) == ".local" || opcode.substr(2, 6) == ".param");
  };
  bool local = false;  // holds one
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t place = 0; place < uses.size(); ++place) {
      if (!(local && is_local(place, "ld")) && std::ranges::none_of(uses[place].reads, is_held)) continue;
      if (is_local(place, "st")) changed |= !std::exchange(local, true);
      for (const Slot slot : uses[place].writes) {
        if (slot < 0 || holds[slot]) continue;
        holds[slot] = changed = true;
      }
    }
  }
  kernel.accumulators.clear();
  for (std::size_t slot = 0; slot < holds.size(); ++slot)
    if (holds[slot]) kernel.accumulators.push_back(static_cast<Slot>(slot));
}

}  // namespace cnnkernels::emulator
