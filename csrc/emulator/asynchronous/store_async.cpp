// st.async: a few bytes into another block's shared memory, which an mbarrier there counts.
#include <array>
#include <cstring>

#include "emulator/asynchronous/families.h"
#include "emulator/asynchronous/signalled.h"
#include "emulator/memory/address.h"

namespace cnnkernels::emulator {
namespace {

struct StoreDetails : Details {
  Decoder::Base mbarrier;
};

void execute(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto& details = static_cast<const StoreDetails&>(*instruction.details);
  const auto element = static_cast<std::uint32_t>(bytes_of(instruction.type));
  const std::uint32_t bytes = element * instruction.list_size;
  for_each_lane(lanes, [&](int lane) {
    std::array<std::byte, 16> values{};
    for (std::uint32_t i = 0; i < instruction.list_size; ++i) {
      const std::uint64_t value = element == 8 ? warp.lanes<std::uint64_t>(instruction.list[i])[lane]
                                               : warp.lanes<std::uint32_t>(instruction.list[i])[lane];
      std::memcpy(values.data() + i * element, &value, element);
    }
    const SharedPlace to =
        shared_place(warp, lane, Space::cluster, address_at(warp, instruction, lane), bytes, bytes);
    start(warp, {
                    .to = to,
                    .bytes = bytes,
                    .counted = bytes,
                    .mbarrier = shared_place(warp, lane, Space::cluster,
                                             address_at(warp, details.mbarrier, lane), 8, 8),
                    .lane = lane,
                    .line = instruction.line,
                    .for_each_range = [&](auto function) { function(to.offset, bytes); },
                    .land =
                        [values, bytes, offset = to.offset](Block& block) {
                          std::memcpy(block.shared.at(offset), values.data(), bytes);
                          block.shared.mark_written(offset, bytes);
                        },
                });
  });
}

}  // namespace

bool decode_store_async(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.starts("red.async")) refuse(statement, "reductions into shared memory are not known");
  if (!statement.starts("st.async")) return false;
  auto details = std::make_unique<StoreDetails>();
  decoder.address(statement, 0, instruction);
  instruction.type = statement.type();
  std::vector<Slot> slots;
  const Operand& values = statement.operands[1];
  if (values.is(Operand::Kind::vector)) {
    for (const Operand& value : values.elements)
      slots.push_back(decoder.source(statement, value, instruction.type));
  } else {
    slots.push_back(decoder.source(statement, values, instruction.type));
  }
  const auto kept = decoder.keep(std::move(slots));
  instruction.list = kept.data();
  instruction.list_size = static_cast<std::uint8_t>(kept.size());
  details->mbarrier = decoder.address(statement, statement.operands[2]);
  instruction.details = &decoder.keep(std::move(details));
  instruction.execute = execute;
  return true;
}

}  // namespace cnnkernels::emulator
