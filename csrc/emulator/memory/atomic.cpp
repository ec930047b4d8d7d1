// atom and red.
#include "emulator/memory/atomic.h"

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "emulator/memory/address.h"
#include "emulator/numbers.h"
#include "emulator/profile/measure.h"
#include "emulator/ptx/decoder.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

using Kind = Operand::Kind;

template <class T>
T combine_numbers(AtomicOperation operation, T old, T value) {
  switch (operation) {
    case AtomicOperation::add:
      if constexpr (std::is_integral_v<T>)
        return static_cast<T>(std::make_unsigned_t<T>(old) + std::make_unsigned_t<T>(value));
      else
        return old + value;
    case AtomicOperation::min:
      if constexpr (std::is_integral_v<T>)
        return old < value ? old : value;
      else
        return std::fmin(old, value);
    case AtomicOperation::max:
      if constexpr (std::is_integral_v<T>)
        return old > value ? old : value;
      else
        return std::fmax(old, value);
    default:
      fault("this operation is not known on numbers");
  }
}

std::uint64_t combine_halves(AtomicOperation operation, const Format& format, std::uint64_t old,
                             std::uint64_t value, int count) {
  std::uint64_t result = 0;
  for (int shift = 0; shift < 16 * count; shift += 16) {
    const double a = decode(format, old >> shift & 0xffff), b = decode(format, value >> shift & 0xffff);
    result |= std::uint64_t{encode(format, combine_numbers(operation, a, b), Rounding::nearest)} << shift;
  }
  return result;
}

std::uint64_t low_bits(std::uint64_t value, int bytes) {
  return bytes == 8 ? value : value & ((std::uint64_t{1} << 8 * bytes) - 1);
}

template <class T>
std::uint64_t atomically(std::byte* place, AtomicOperation operation, Type type, std::uint64_t value,
                         std::uint64_t compare) {
  std::atomic_ref<T> memory(*reinterpret_cast<T*>(place));
  T old = memory.load();
  while (!memory.compare_exchange_weak(old, static_cast<T>(combine(operation, type, old, value, compare)))) {
  }
  return old;
}

std::uint64_t read_register(Warp& warp, Slot slot, int bytes, int lane) {
  switch (bytes) {
    case 2:
      return warp.lanes<std::uint16_t>(slot)[lane];
    case 4:
      return warp.lanes<std::uint32_t>(slot)[lane];
    default:
      return warp.lanes<std::uint64_t>(slot)[lane];
  }
}

void write_register(Warp& warp, Slot slot, int bytes, int lane, std::uint64_t value) {
  switch (bytes) {
    case 2:
      warp.lanes<std::uint16_t>(slot)[lane] = static_cast<std::uint16_t>(value);
      break;
    case 4:
      warp.lanes<std::uint32_t>(slot)[lane] = static_cast<std::uint32_t>(value);
      break;
    default:
      warp.lanes<std::uint64_t>(slot)[lane] = value;
      break;
  }
}

struct AtomicDetails : Details {
  AtomicOperation operation = AtomicOperation::none;
  std::vector<Slot> values, results;  // results are empty of red
  Slot compare = kNone;               // of cas: what is written
};

void execute(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto& details = static_cast<const AtomicDetails&>(*instruction.details);
  const int bytes = bytes_of(instruction.type);
  const auto count = static_cast<int>(details.values.size());
  for_each_lane(lanes, [&](int lane) {
    const std::uint64_t address =
        warp.address(instruction, lane) + static_cast<std::uint64_t>(instruction.offset);
    std::byte* memory = place(warp, lane, instruction.space, address, bytes * count, Access::atomic);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t value = read_register(warp, details.values[i], bytes, lane);
      const std::uint64_t other =
          details.compare == kNone ? 0 : read_register(warp, details.compare, bytes, lane);
      const std::uint64_t old =
          atomic_on_memory(memory + i * bytes, details.operation, instruction.type, value, other);
      // To have failed to take a lock is no news to others.
      if (details.operation != AtomicOperation::compare || old == value) ++warp.cluster->events;
      if (!details.results.empty()) write_register(warp, details.results[i], bytes, lane, old);
    }
  });
}

}  // namespace

AtomicOperation atomic_operation_named(std::string_view word) {
  static constexpr std::pair<std::string_view, AtomicOperation> kNames[] = {
      {"add", AtomicOperation::add},       {"min", AtomicOperation::min},
      {"max", AtomicOperation::max},       {"and", AtomicOperation::bit_and},
      {"or", AtomicOperation::bit_or},     {"xor", AtomicOperation::bit_xor},
      {"exch", AtomicOperation::exchange}, {"cas", AtomicOperation::compare},
      {"inc", AtomicOperation::increment}, {"dec", AtomicOperation::decrement}};
  for (const auto& [name, operation] : kNames)
    if (name == word) return operation;
  return AtomicOperation::none;
}

std::uint64_t combine(AtomicOperation operation, Type type, std::uint64_t old, std::uint64_t value,
                      std::uint64_t compare) {
  const int bytes = bytes_of(type);
  old = low_bits(old, bytes);
  value = low_bits(value, bytes);
  switch (operation) {
    case AtomicOperation::bit_and:
      return old & value;
    case AtomicOperation::bit_or:
      return old | value;
    case AtomicOperation::bit_xor:
      return old ^ value;
    case AtomicOperation::exchange:
      return value;
    case AtomicOperation::compare:
      return old == value ? low_bits(compare, bytes) : old;
    case AtomicOperation::increment:
      return old >= value ? 0 : old + 1;
    case AtomicOperation::decrement:
      return old == 0 || old > value ? value : old - 1;
    default:
      break;
  }
  switch (type) {
    case Type::f16:
      return combine_halves(operation, kF16, old, value, 1);
    case Type::f16x2:
      return combine_halves(operation, kF16, old, value, 2);
    case Type::bf16:
      return combine_halves(operation, kBf16, old, value, 1);
    case Type::bf16x2:
      return combine_halves(operation, kBf16, old, value, 2);
    case Type::f32:
      return std::bit_cast<std::uint32_t>(combine_numbers(operation, std::bit_cast<float>(std::uint32_t(old)),
                                                          std::bit_cast<float>(std::uint32_t(value))));
    case Type::f64:
      return std::bit_cast<std::uint64_t>(
          combine_numbers(operation, std::bit_cast<double>(old), std::bit_cast<double>(value)));
    case Type::s32:
      return std::uint32_t(combine_numbers(operation, std::int32_t(old), std::int32_t(value)));
    case Type::s64:
      return std::uint64_t(combine_numbers(operation, std::int64_t(old), std::int64_t(value)));
    default:
      return low_bits(combine_numbers(operation, old, value), bytes);
  }
}

std::uint64_t atomic_on_memory(std::byte* place, AtomicOperation operation, Type type, std::uint64_t value,
                               std::uint64_t compare) {
  switch (bytes_of(type)) {
    case 2:
      return atomically<std::uint16_t>(place, operation, type, value, compare);
    case 4:
      return atomically<std::uint32_t>(place, operation, type, value, compare);
    case 8:
      return atomically<std::uint64_t>(place, operation, type, value, compare);
    default:
      fault("an atomic operation on %s is not known", name_of(type));
  }
}

bool decode_atomic(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const bool returns = statement.words[0] == "atom";
  if (!returns && statement.words[0] != "red") return false;
  if (statement.has("async")) return false;
  auto details = std::make_unique<AtomicDetails>();
  for (const std::string_view word : statement.words)
    if (details->operation == AtomicOperation::none) details->operation = atomic_operation_named(word);
  if (details->operation == AtomicOperation::none) refuse(statement, "this operation is not known");
  instruction.type = statement.type();
  if (bytes_of(instruction.type) > 8 || bytes_of(instruction.type) < 2)
    refuse(statement, "this type is not known");

  const std::size_t address = returns;
  if (statement.operands.size() < address + 2) refuse(statement, "an operand is missing");
  decoder.address(statement, address, instruction);
  instruction.space = statement.space();
  const auto each = [](const Operand& operand) {
    return operand.is(Kind::vector) ? operand.elements : std::vector<Operand>{operand};
  };
  for (const Operand& value : each(statement.operands[address + 1]))
    details->values.push_back(decoder.source(statement, value, instruction.type));
  if (returns && !statement.operands[0].is(Kind::sink))
    for (const Operand& result : each(statement.operands[0]))
      details->results.push_back(decoder.destination(statement, result, instruction.type));
  if (returns && !details->results.empty() && details->results.size() != details->values.size())
    refuse(statement, "as many results as values are needed");
  if (details->operation == AtomicOperation::compare)
    details->compare = decoder.source(statement, address + 2, instruction.type);
  instruction.list_size = static_cast<std::uint8_t>(details->values.size());
  instruction.details = &decoder.keep(std::move(details));
  instruction.execute = execute;
  instruction.measure = measure_atomic;
  return true;
}

}  // namespace cnnkernels::emulator
