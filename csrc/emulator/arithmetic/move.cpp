// mov, with its packing and unpacking of vectors, selp, slct, and what is done with predicates.

#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

using Kind = Operand::Kind;

constexpr auto same = [](auto a) { return a; };

// 16 bytes lie as two lists of 8.
void move_16_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto* from = warp.lanes<std::uint64_t>(instruction.source[0]);
  auto* to = warp.lanes<std::uint64_t>(instruction.destination);
  for_each_lane(lanes, [&](int lane) {
    to[lane] = from[lane];
    to[kLanes + lane] = from[kLanes + lane];
  });
}

// A register of 4 or 8 bytes is its elements one after another, the first in the low bits.
template <class Whole, class Element>
void pack(Warp& warp, const Instruction& instruction, Mask lanes) {
  constexpr int kCount = sizeof(Whole) / sizeof(Element);
  Whole results[kLanes] = {};
  for (int i = 0; i < kCount; ++i) {
    const Element* element = warp.lanes<Element>(instruction.list[i]);
    for (int lane = 0; lane < kLanes; ++lane)
      results[lane] |= static_cast<Whole>(static_cast<Whole>(element[lane]) << (8 * sizeof(Element) * i));
  }
  put(warp, instruction.destination, results, lanes);
}

template <class Whole, class Element>
void unpack(Warp& warp, const Instruction& instruction, Mask lanes) {
  constexpr int kCount = sizeof(Whole) / sizeof(Element);
  Whole values[kLanes];
  std::memcpy(values, warp.lanes<Whole>(instruction.source[0]), sizeof values);
  for (int i = 0; i < kCount; ++i) {
    Element results[kLanes];
    for (int lane = 0; lane < kLanes; ++lane)
      results[lane] = static_cast<Element>(values[lane] >> (8 * sizeof(Element) * i));
    put(warp, instruction.list[i], results, lanes);
  }
}

// The two halves, or four quarters, of 16 bytes.
template <class Element>
void pack_16_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  auto* to = warp.lanes<std::uint64_t>(instruction.destination);
  constexpr int kHalf = 8 / sizeof(Element);
  for_each_lane(lanes, [&](int lane) {
    for (int half = 0; half < 2; ++half) {
      std::uint64_t value = 0;
      for (int i = 0; i < kHalf; ++i)
        value |= std::uint64_t{warp.lanes<Element>(instruction.list[half * kHalf + i])[lane]}
                 << (8 * sizeof(Element) * i);
      to[half * kLanes + lane] = value;
    }
  });
}

template <class Element>
void unpack_16_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto* from = warp.lanes<std::uint64_t>(instruction.source[0]);
  constexpr int kHalf = 8 / sizeof(Element);
  for_each_lane(lanes, [&](int lane) {
    const std::uint64_t halves[2] = {from[lane], from[kLanes + lane]};
    for (int i = 0; i < 2 * kHalf; ++i)
      warp.lanes<Element>(instruction.list[i])[lane] =
          static_cast<Element>(halves[i / kHalf] >> (8 * sizeof(Element) * (i % kHalf)));
  });
}

struct Repack {
  int whole, element;  // bytes
  Execute pack, unpack;
};

Repack repack_of(int whole, int element) {
  using u8 = std::uint8_t;
  using u16 = std::uint16_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  static constexpr Repack kRepacks[] = {
      {2, 1, pack<u16, u8>, unpack<u16, u8>},
      {4, 1, pack<u32, u8>, unpack<u32, u8>},
      {4, 2, pack<u32, u16>, unpack<u32, u16>},
      {8, 2, pack<u64, u16>, unpack<u64, u16>},
      {8, 4, pack<u64, u32>, unpack<u64, u32>},
      {16, 4, pack_16_bytes<u32>, unpack_16_bytes<u32>},
      {16, 8, pack_16_bytes<u64>, unpack_16_bytes<u64>},
  };
  for (const Repack& repack : kRepacks)
    if (repack.whole == whole && repack.element == element) return repack;
  return {};
}

bool decode_repack(Decoder& decoder, const Statement& statement, Instruction& instruction, Type type) {
  const bool packs = statement.operands[1].is(Kind::vector);
  const Operand& vector = statement.operands[packs ? 1 : 0];
  if (vector.elements.empty()) refuse(statement, "an empty vector");
  const int bytes = bytes_of(type) / static_cast<int>(vector.elements.size());
  const Repack repack = repack_of(bytes_of(type), bytes);
  if (!repack.pack) refuse(statement, "a vector of this many elements is not known");
  const Type element = bytes == 8 ? Type::b64 : bytes == 4 ? Type::b32 : bytes == 2 ? Type::b16 : Type::b8;
  std::vector<Slot> slots;
  for (const Operand& operand : vector.elements)
    slots.push_back(packs ? decoder.source(statement, operand, element)
                          : decoder.destination(statement, operand, element));
  instruction.list = decoder.keep(std::move(slots)).data();
  instruction.list_size = static_cast<std::uint8_t>(vector.elements.size());
  if (packs)
    instruction.destination = decoder.destination(statement, 0, type);
  else
    instruction.source[0] = decoder.source(statement, 1, type);
  return finish(statement, instruction, packs ? repack.pack : repack.unpack);
}

template <class T>
void select(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T *a = warp.lanes<T>(instruction.source[0]), *b = warp.lanes<T>(instruction.source[1]);
  const Mask first = warp.predicate_source(instruction, 2);
  T results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = first >> lane & 1 ? a[lane] : b[lane];
  put(warp, instruction.destination, results, lanes);
}

template <class T, class Sign>
void select_by_sign(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T *a = warp.lanes<T>(instruction.source[0]), *b = warp.lanes<T>(instruction.source[1]);
  const Sign* sign = warp.lanes<Sign>(instruction.source[2]);
  T results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = sign[lane] >= 0 ? a[lane] : b[lane];
  put(warp, instruction.destination, results, lanes);
}

bool decode_select(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::vector<Type> types = statement.types();
  if (types.empty() || statement.operands.size() != 4) refuse(statement, "another number of operands");
  const Type type = types[0];
  instruction.destination = decoder.destination(statement, 0, type);
  for (int i = 0; i < 2; ++i) instruction.source[i] = decoder.source(statement, i + 1, type);
  const int bytes = bytes_of(type);
  if (statement.words[0] == "selp") {
    instruction.source[2] = decoder.predicate(statement, statement.operands[3]);
    instruction.negated = statement.operands[3].negated << 2;
    return finish(statement, instruction,
                  bytes == 2   ? select<std::uint16_t>
                  : bytes == 4 ? select<std::uint32_t>
                               : select<std::uint64_t>);
  }
  const bool by_float = types.back() == Type::f32;
  instruction.source[2] = decoder.source(statement, 3, by_float ? Type::f32 : Type::s32);
  using u16 = std::uint16_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  if (by_float)
    return finish(statement, instruction,
                  bytes == 2   ? select_by_sign<u16, float>
                  : bytes == 4 ? select_by_sign<u32, float>
                               : select_by_sign<u64, float>);
  return finish(statement, instruction,
                bytes == 2   ? select_by_sign<u16, std::int32_t>
                : bytes == 4 ? select_by_sign<u32, std::int32_t>
                             : select_by_sign<u64, std::int32_t>);
}

template <auto kOperation>
void on_predicates(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Mask a = warp.predicate_source(instruction, 0), b = warp.predicate_source(instruction, 1);
  warp.set_predicate(instruction.destination, kOperation(a, b), lanes);
}

void select_predicate(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Mask a = warp.predicate_source(instruction, 0), b = warp.predicate_source(instruction, 1);
  const Mask first = warp.predicate_source(instruction, 2);
  warp.set_predicate(instruction.destination, (a & first) | (b & ~first), lanes);
}

bool decode_predicates(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const auto& operands = statement.operands;
  const std::size_t sources = word == "selp" ? 3 : word == "mov" || word == "not" ? 1 : 2;
  if (operands.size() != sources + 1) refuse(statement, "another number of operands");
  instruction.destination = decoder.predicate_destination(statement, operands[0]);
  for (std::size_t i = 0; i < sources; ++i) {
    instruction.source[i] = decoder.predicate(statement, operands[i + 1]);
    instruction.negated |= operands[i + 1].negated << i;
  }
  if (sources == 1) instruction.source[1] = instruction.source[0];
  if (word == "mov") return finish(statement, instruction, on_predicates<[](Mask a, Mask) { return a; }>);
  if (word == "not") return finish(statement, instruction, on_predicates<[](Mask a, Mask) { return ~a; }>);
  if (word == "and")
    return finish(statement, instruction, on_predicates<[](Mask a, Mask b) { return a & b; }>);
  if (word == "or")
    return finish(statement, instruction, on_predicates<[](Mask a, Mask b) { return a | b; }>);
  if (word == "xor")
    return finish(statement, instruction, on_predicates<[](Mask a, Mask b) { return a ^ b; }>);
  return finish(statement, instruction, select_predicate);
}

}  // namespace

bool decode_move(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const Type type = statement.type();
  if (type == Type::pred &&
      (word == "mov" || word == "not" || word == "and" || word == "or" || word == "xor" || word == "selp"))
    return decode_predicates(decoder, statement, instruction);
  if (word == "selp" || word == "slct") return decode_select(decoder, statement, instruction);
  if (word != "mov") return false;
  if (statement.operands.size() != 2) refuse(statement, "another number of operands");
  if (statement.operands[0].is(Kind::vector) || statement.operands[1].is(Kind::vector))
    return decode_repack(decoder, statement, instruction, type);
  decode_operands(decoder, statement, instruction, 1, type);
  switch (bytes_of(type)) {
    case 2:
      return finish(statement, instruction, unary<std::uint16_t, std::uint16_t, same>);
    case 4:
      return finish(statement, instruction, unary<std::uint32_t, std::uint32_t, same>);
    case 8:
      return finish(statement, instruction, unary<std::uint64_t, std::uint64_t, same>);
    case 16:
      return finish(statement, instruction, move_16_bytes);
    default:
      refuse(statement, "this type is not known");
  }
}

}  // namespace cnnkernels::emulator
