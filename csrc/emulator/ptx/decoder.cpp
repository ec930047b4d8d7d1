#include "emulator/ptx/decoder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "emulator/fault.h"

namespace cnnkernels::emulator {

namespace {

using Kind = Operand::Kind;

// What a constant's slot holds; of two alike there is one.
enum ConstantKind : std::uint8_t { kPlain, kShared, kDynamicShared, kSpecial };

const Operand& operand_at(const Statement& statement, std::size_t index) {
  if (index >= statement.operands.size()) refuse(statement, "an operand is missing");
  return statement.operands[index];
}

bool is_special_of_8_bytes(std::string_view name) {
  return name == "%clock64" || name == "%globaltimer" || name == "%gridid" || name == "%current_graph_exec";
}

bool is_clock(std::string_view name) {
  return name.find("clock") != std::string_view::npos || name.find("globaltimer") != std::string_view::npos;
}

// A constant in all lanes of a slot.
void fill(Kernel& kernel, Slot slot, std::uint64_t value, int bytes) {
  auto* words = &kernel.image[std::size_t(slot) * kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    std::memcpy(reinterpret_cast<std::byte*>(words) + lane * bytes, &value, bytes);
}

}  // namespace

Decoder::Decoder(Kernel& kernel) : kernel_(kernel) {}

std::size_t Decoder::Hash::operator()(const Key& key) const {
  return std::hash<std::uint64_t>()(key.value * 31 + key.bytes * 7 + key.kind) ^
         std::hash<std::string_view>()(key.name);
}

std::uint64_t Decoder::immediate_bits(const Statement& statement, const Operand& operand, Type type) {
  const int bytes = bytes_of(type);
  if (!operand.real) return operand.value;
  if (operand.single && bytes == 4) return operand.value;
  const double value = operand.single ? std::bit_cast<float>(static_cast<std::uint32_t>(operand.value))
                                      : std::bit_cast<double>(operand.value);
  if (bytes == 8) return std::bit_cast<std::uint64_t>(value);
  if (bytes == 4) return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  refuse(statement, "a floating-point number of this size");
}

Slot Decoder::constant_of(const Statement& statement, const Operand& operand, Type type) {
  const std::uint8_t bytes = std::max(bytes_of(type), 2);
  Key key{0, bytes, kPlain, {}};
  if (operand.is(Kind::immediate)) {
    key.value = immediate_bits(statement, operand, type);
  } else if (operand.is(Kind::special)) {
    if (is_special_of_8_bytes(operand.text) ? bytes < 4 : bytes != 4)
      refuse(statement, "a special register of another size");
    key.kind = kSpecial;
    key.name = operand.text;
  } else if (operand.is(Kind::symbol)) {
    if (bytes < 4) refuse(statement, "an address needs 4 or 8 bytes");
    key.value = operand.value + static_cast<std::uint64_t>(operand.offset);
    if (operand.space == Space::shared) key.kind = operand.dynamic ? kDynamicShared : kShared;
  } else {
    refuse(statement, "an operand of another kind is needed");
  }
  if (bytes > 8) refuse(statement, "a constant of 16 bytes");
  if (bytes < 8) key.value &= (std::uint64_t{1} << 8 * bytes) - 1;

  const auto [found, is_new] = constants_.try_emplace(key, kNone);
  if (!is_new) return found->second;
  const Slot slot = found->second = kernel_.new_register(bytes);
  fill(kernel_, slot, key.value, bytes);
  if (key.kind == kSpecial) {
    kernel_.specials.push_back({slot, std::string(key.name), bytes == 8});
    kernel_.reads_clock |= is_clock(key.name);
  } else if (key.kind != kPlain) {
    kernel_.shared_addresses.push_back(
        {slot, static_cast<std::uint32_t>(key.value), key.kind == kDynamicShared, bytes == 8});
  }
  return slot;
}

Slot Decoder::constant(std::uint64_t value, Type type) {
  Operand operand;
  operand.kind = Kind::immediate;
  operand.value = value;
  return constant_of(Statement(), operand, type);
}

Slot Decoder::source(const Statement& statement, std::size_t index, Type type) {
  return source(statement, operand_at(statement, index), type);
}

Slot Decoder::source(const Statement& statement, const Operand& operand, Type type) {
  if (!operand.is(Kind::reg)) return constant_of(statement, operand, type);
  if (operand.bytes != bytes_of(type)) refuse(statement, "a source register of another size than the type");
  uses_.reads.push_back(operand.slot);
  return operand.slot;
}

Slot Decoder::wide_source(const Statement& statement, const Operand& operand, Type type,
                          std::uint8_t& bytes) {
  bytes = operand.is(Kind::reg) ? operand.bytes : static_cast<std::uint8_t>(std::max(bytes_of(type), 2));
  if (!operand.is(Kind::reg)) return constant_of(statement, operand, type);
  if (bytes < bytes_of(type)) refuse(statement, "a source register smaller than the type");
  uses_.reads.push_back(operand.slot);
  return operand.slot;
}

Slot Decoder::destination(const Statement& statement, std::size_t index, Type type) {
  return destination(statement, operand_at(statement, index), type);
}

Slot Decoder::destination(const Statement& statement, const Operand& operand, Type type) {
  std::uint8_t bytes = 0;
  const Slot slot = wide_destination(statement, operand, type, bytes);
  if (bytes != bytes_of(type)) refuse(statement, "a destination register of another size than the type");
  return slot;
}

Slot Decoder::wide_destination(const Statement& statement, const Operand& operand, Type type,
                               std::uint8_t& bytes) {
  if (operand.is(Kind::sink)) {
    bytes = static_cast<std::uint8_t>(bytes_of(type));
    if (sink_ == kNone) sink_ = kernel_.new_register(16);
    return sink_;
  }
  if (!operand.is(Kind::reg)) refuse(statement, "a register is needed as a destination");
  bytes = operand.bytes;
  if (bytes < bytes_of(type)) refuse(statement, "a destination register smaller than the type");
  uses_.writes.push_back(operand.slot);
  return operand.slot;
}

Slot Decoder::accumulator(const Statement& statement, const Operand& operand, Type type) {
  const Slot slot = destination(statement, operand, type);
  kernel_.accumulators.push_back(slot);
  return slot;
}

Slot Decoder::predicate(const Statement& statement, const Operand& operand) {
  if (operand.is(Kind::immediate)) {
    Slot& slot = constant_predicates_[operand.value != 0];
    if (slot == kNone) {
      slot = kernel_.predicates++;
      kernel_.predicate_image.resize(kernel_.predicates, 0);
      kernel_.predicate_image[slot] = operand.value ? kAllLanes : 0;
    }
    return slot;
  }
  if (!operand.is(Kind::predicate)) refuse(statement, "a predicate is needed as a source");
  uses_.reads.push_back(~operand.slot);
  return operand.slot;
}

Slot Decoder::predicate_destination(const Statement& statement, const Operand& operand) {
  if (operand.is(Kind::sink)) {
    if (predicate_sink_ == kNone) predicate_sink_ = kernel_.predicates++;
    return predicate_sink_;
  }
  if (!operand.is(Kind::predicate) || operand.negated)
    refuse(statement, "a predicate is needed as a destination");
  uses_.writes.push_back(~operand.slot);
  return operand.slot;
}

void Decoder::address(const Statement& statement, std::size_t index, Instruction& instruction) {
  const Base base = address(statement, operand_at(statement, index));
  instruction.source[0] = base.slot;
  instruction.address_bytes = base.bytes;
  instruction.offset = base.offset;
}

Decoder::Base Decoder::address(const Statement& statement, const Operand& operand) {
  if (!operand.is(Kind::address)) refuse(statement, "an address in brackets is needed");
  const Operand& base = operand.elements.at(0);
  if (!base.is(Kind::reg)) return {constant_of(statement, base, Type::b64), 8, operand.offset};
  if (base.bytes != 4 && base.bytes != 8) refuse(statement, "an address of 4 or 8 bytes is needed");
  uses_.reads.push_back(base.slot);
  return {base.slot, base.bytes, operand.offset};
}

std::int64_t Decoder::number(const Statement& statement, std::size_t index) {
  return number(statement, operand_at(statement, index));
}

std::int64_t Decoder::number(const Statement& statement, const Operand& operand) {
  if (!operand.is(Kind::immediate) || operand.real) refuse(statement, "an integer constant is needed");
  return static_cast<std::int64_t>(operand.value);
}

std::span<const Slot> Decoder::keep(std::vector<Slot> slots) {
  kernel_.lists.push_back(std::make_unique<std::vector<Slot>>(std::move(slots)));
  return *kernel_.lists.back();
}

}  // namespace cnnkernels::emulator
