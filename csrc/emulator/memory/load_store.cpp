// ld and st of all widths. Cache operators and policies change no value and are passed over.
#include <algorithm>
#include <cstring>

#include "emulator/memory/address.h"
#include "emulator/profile/measure.h"
#include "emulator/ptx/decoder.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

using Kind = Operand::Kind;

std::uint64_t address_of(Warp& warp, const Instruction& instruction, int lane) {
  return warp.address(instruction, lane) + static_cast<std::uint64_t>(instruction.offset);
}

// One value of type `Value` (signed where the PTX type is) into a register of `Register`, which may be wider.
template <class Value, class Register>
void load(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t bytes = sizeof(Value) * instruction.list_size;
  for_each_lane(lanes, [&](int lane) {
    const std::byte* from =
        place(warp, lane, instruction.space, address_of(warp, instruction, lane), bytes, Access::read);
    for (int i = 0; i < instruction.list_size; ++i) {
      Value value;
      std::memcpy(&value, from + i * sizeof(Value), sizeof(Value));
      warp.lanes<Register>(instruction.list[i])[lane] = static_cast<Register>(value);
    }
  });
}

template <class Value, class Register>
void store(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t bytes = sizeof(Value) * instruction.list_size;
  ++warp.cluster->events;
  for_each_lane(lanes, [&](int lane) {
    std::byte* to =
        place(warp, lane, instruction.space, address_of(warp, instruction, lane), bytes, Access::write);
    for (int i = 0; i < instruction.list_size; ++i) {
      const auto value = static_cast<Value>(warp.lanes<Register>(instruction.list[i])[lane]);
      std::memcpy(to + i * sizeof(Value), &value, sizeof(Value));
    }
  });
}

// The halves of 16 bytes lie in two lists of lanes.
void load_16_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  auto* low = warp.lanes<std::uint64_t>(instruction.list[0]);
  for_each_lane(lanes, [&](int lane) {
    const std::byte* from =
        place(warp, lane, instruction.space, address_of(warp, instruction, lane), 16, Access::read);
    std::memcpy(&low[lane], from, 8);
    std::memcpy(&low[kLanes + lane], from + 8, 8);
  });
}

void store_16_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto* low = warp.lanes<std::uint64_t>(instruction.list[0]);
  ++warp.cluster->events;
  for_each_lane(lanes, [&](int lane) {
    std::byte* to =
        place(warp, lane, instruction.space, address_of(warp, instruction, lane), 16, Access::write);
    std::memcpy(to, &low[lane], 8);
    std::memcpy(to + 8, &low[kLanes + lane], 8);
  });
}

template <class Value>
Execute load_into(int register_bytes) {
  constexpr int kBytes = sizeof(Value);
  if (register_bytes == 8) return load<Value, std::uint64_t>;
  if constexpr (kBytes <= 4)
    if (register_bytes == 4) return load<Value, std::uint32_t>;
  if constexpr (kBytes <= 2)
    if (register_bytes == 2) return load<Value, std::uint16_t>;
  if constexpr (kBytes == 1)
    if (register_bytes == 1) return load<Value, std::uint8_t>;
  return nullptr;
}

template <class Value>
Execute store_from(int register_bytes) {
  constexpr int kBytes = sizeof(Value);
  if (register_bytes == 8) return store<Value, std::uint64_t>;
  if constexpr (kBytes <= 4)
    if (register_bytes == 4) return store<Value, std::uint32_t>;
  if constexpr (kBytes <= 2)
    if (register_bytes == 2) return store<Value, std::uint16_t>;
  if constexpr (kBytes == 1)
    if (register_bytes == 1) return store<Value, std::uint8_t>;
  return nullptr;
}

Execute load_of(Type type, int register_bytes) {
  switch (type) {
    case Type::s8:
      return load_into<std::int8_t>(register_bytes);
    case Type::s16:
      return load_into<std::int16_t>(register_bytes);
    case Type::s32:
      return load_into<std::int32_t>(register_bytes);
    default:
      break;
  }
  switch (bytes_of(type)) {
    case 1:
      return load_into<std::uint8_t>(register_bytes);
    case 2:
      return load_into<std::uint16_t>(register_bytes);
    case 4:
      return load_into<std::uint32_t>(register_bytes);
    case 8:
      return load_into<std::uint64_t>(register_bytes);
    case 16:
      return load_16_bytes;
    default:
      return nullptr;
  }
}

Execute store_of(Type type, int register_bytes) {
  switch (bytes_of(type)) {
    case 1:
      return store_from<std::uint8_t>(register_bytes);
    case 2:
      return store_from<std::uint16_t>(register_bytes);
    case 4:
      return store_from<std::uint32_t>(register_bytes);
    case 8:
      return store_from<std::uint64_t>(register_bytes);
    case 16:
      return store_16_bytes;
    default:
      return nullptr;
  }
}

Type bits_of(int bytes) {
  return bytes == 8 ? Type::b64 : bytes == 4 ? Type::b32 : bytes == 2 ? Type::b16 : Type::b8;
}

// Of the registers among the elements; where there is none, of what a constant gets.
std::uint8_t width_of(const Statement& statement, const std::vector<Operand>& elements, Type type) {
  int width = 0;
  for (const Operand& element : elements) {
    if (!element.is(Kind::reg)) continue;
    if (width && element.bytes != width) refuse(statement, "registers of different sizes");
    width = element.bytes;
  }
  return static_cast<std::uint8_t>(width ? width : std::max(bytes_of(type), 2));
}

}  // namespace

bool decode_load_store(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const bool loads = statement.words[0] == "ld" || statement.words[0] == "ldu";
  if (!loads && statement.words[0] != "st") return false;
  if (statement.has("async") || statement.has("bulk")) return false;
  if (statement.operands.size() < 2) refuse(statement, "an operand is missing");
  const Type type = instruction.type = statement.type();
  const Operand& value = statement.operands[loads ? 0 : 1];
  const std::size_t address = loads ? 1 : 0;
  decoder.address(statement, address, instruction);
  instruction.space = statement.space();
  // .param within a function is the function's own, which lies in local memory.
  if (instruction.space == Space::param && statement.operands[address].space == Space::local)
    instruction.space = Space::local;

  const std::vector<Operand> elements = value.is(Kind::vector) ? value.elements : std::vector<Operand>{value};
  const int width = instruction.register_bytes = width_of(statement, elements, type);
  std::vector<Slot> slots;
  for (const Operand& element : elements) {
    std::uint8_t bytes = 0;
    if (loads)
      slots.push_back(decoder.wide_destination(statement, element, type, bytes));
    else if (element.is(Kind::reg))
      slots.push_back(decoder.wide_source(statement, element, type, bytes));
    else
      slots.push_back(decoder.source(statement, element, bits_of(width)));
  }
  if (bytes_of(type) == 16 && slots.size() != 1) refuse(statement, "a vector of 16 bytes each");
  instruction.list = decoder.keep(std::move(slots)).data();
  instruction.list_size = static_cast<std::uint8_t>(elements.size());
  instruction.execute =
      loads ? load_of(type, instruction.register_bytes) : store_of(type, instruction.register_bytes);
  const bool past_l1 = statement.has("cg") || statement.has("cv") || statement.has("L1::no_allocate");
  instruction.measure = !loads ? measure_store : past_l1 ? measure_load_past_l1 : measure_load;
  if (!instruction.execute) refuse(statement, "this type or this size of registers is not known");
  return true;
}

}  // namespace cnnkernels::emulator
