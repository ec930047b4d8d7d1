// What the lanes of a warp do together: shfl, vote, match, redux, elect, activemask.
#include <algorithm>

#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

enum class Shuffle : std::uint8_t { up, down, butterfly, index };

void shuffle(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t *a = warp.lanes(instruction.source[0]), *b = warp.lanes(instruction.source[1]);
  const std::uint32_t* c = warp.lanes(instruction.source[2]);
  std::uint32_t results[kLanes] = {};
  Mask inside = 0;
  for_each_lane(lanes, [&](int lane) {
    const int distance = b[lane] & 31, segment = c[lane] >> 8 & 31, clamp = c[lane] & 31;
    const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    int from = 0;
    bool valid = false;
    switch (static_cast<Shuffle>(instruction.flags)) {
      case Shuffle::up:
        from = lane - distance, valid = from >= last;
        break;
      case Shuffle::down:
        from = lane + distance, valid = from <= last;
        break;
      case Shuffle::butterfly:
        from = lane ^ distance, valid = from <= last;
        break;
      case Shuffle::index:
        from = first | (distance & ~segment), valid = from <= last;
        break;
    }
    if (!valid) from = lane;
    if (!(lanes >> from & 1))
      fault_of_lane(lane, "takes the value of lane %d, which does not take part", from);
    results[lane] = a[from];
    inside |= Mask{valid} << lane;
  });
  put(warp, instruction.destination, results, lanes);
  if (instruction.second != kNone) warp.set_predicate(instruction.second, inside, lanes);
}

enum class Vote : std::uint8_t { all, any, uniform, ballot };

void vote(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Mask votes = warp.predicate_source(instruction, 0) & lanes;
  switch (static_cast<Vote>(instruction.flags)) {
    case Vote::ballot: {
      std::uint32_t results[kLanes];
      std::fill(std::begin(results), std::end(results), votes);
      return put(warp, instruction.destination, results, lanes);
    }
    case Vote::all:
      return warp.set_predicate(instruction.destination, votes == lanes ? kAllLanes : 0, lanes);
    case Vote::any:
      return warp.set_predicate(instruction.destination, votes ? kAllLanes : 0, lanes);
    case Vote::uniform:
      return warp.set_predicate(instruction.destination, !votes || votes == lanes ? kAllLanes : 0, lanes);
  }
}

template <class T>
void match_any(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  std::uint32_t results[kLanes] = {};
  for_each_lane(lanes, [&](int lane) {
    for_each_lane(lanes, [&](int other) { results[lane] |= Mask{a[lane] == a[other]} << other; });
  });
  put(warp, instruction.destination, results, lanes);
}

template <class T>
void match_all(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  bool same = true;
  for_each_lane(lanes, [&](int lane) { same &= a[lane] == a[__builtin_ctz(lanes)]; });
  std::uint32_t results[kLanes];
  std::fill(std::begin(results), std::end(results), same ? lanes : 0);
  put(warp, instruction.destination, results, lanes);
  if (instruction.second != kNone) warp.set_predicate(instruction.second, same ? kAllLanes : 0, lanes);
}

template <class T, auto kOperation>
void reduce(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  T result = a[__builtin_ctz(lanes)];
  for_each_lane(lanes & (lanes - 1), [&](int lane) { result = kOperation(result, a[lane]); });
  T results[kLanes];
  std::fill(std::begin(results), std::end(results), result);
  put(warp, instruction.destination, results, lanes);
}

Execute reduction_of(const Statement& statement, Type type) {
  using u32 = std::uint32_t;
  using s32 = std::int32_t;
  if (type == Type::f32) return nullptr;  // Blackwell's
  if (statement.has("add")) return reduce<u32, [](u32 a, u32 b) { return a + b; }>;
  if (statement.has("and")) return reduce<u32, [](u32 a, u32 b) { return a & b; }>;
  if (statement.has("or")) return reduce<u32, [](u32 a, u32 b) { return a | b; }>;
  if (statement.has("xor")) return reduce<u32, [](u32 a, u32 b) { return a ^ b; }>;
  const bool is_signed = type == Type::s32;
  if (statement.has("min"))
    return is_signed ? reduce<s32, [](s32 a, s32 b) { return std::min(a, b); }>
                     : reduce<u32, [](u32 a, u32 b) { return std::min(a, b); }>;
  if (statement.has("max"))
    return is_signed ? reduce<s32, [](s32 a, s32 b) { return std::max(a, b); }>
                     : reduce<u32, [](u32 a, u32 b) { return std::max(a, b); }>;
  return nullptr;
}

void elect(Warp& warp, const Instruction& instruction, Mask lanes) {
  const int leader = __builtin_ctz(lanes);
  std::uint32_t results[kLanes];
  std::fill(std::begin(results), std::end(results), leader);
  put(warp, instruction.destination, results, lanes);
  if (instruction.second != kNone) warp.set_predicate(instruction.second, Mask{1} << leader, lanes);
}

void active_mask(Warp& warp, const Instruction& instruction, Mask lanes) {
  std::uint32_t results[kLanes];
  std::fill(std::begin(results), std::end(results), lanes);
  put(warp, instruction.destination, results, lanes);
}

// d|p: the predicate is not always there.
void decode_second(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const auto& second = statement.operands.at(0).second;
  if (!second.empty()) instruction.second = decoder.predicate_destination(statement, second[0]);
}

bool decode_shuffle(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.operands.size() != 5) refuse(statement, "shfl without a member mask is not known");
  instruction.flags = static_cast<std::uint32_t>(statement.has("up")     ? Shuffle::up
                                                 : statement.has("down") ? Shuffle::down
                                                 : statement.has("bfly") ? Shuffle::butterfly
                                                                         : Shuffle::index);
  instruction.destination = decoder.destination(statement, 0, Type::b32);
  for (int i = 0; i < 3; ++i) instruction.source[i] = decoder.source(statement, i + 1, Type::b32);
  instruction.members = decoder.source(statement, 4, Type::b32);
  decode_second(decoder, statement, instruction);
  return finish(statement, instruction, shuffle);
}

bool decode_vote(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const auto& operands = statement.operands;
  if (operands.size() != 3) refuse(statement, "vote without a member mask is not known");
  const Vote kind = statement.has("all")   ? Vote::all
                    : statement.has("any") ? Vote::any
                    : statement.has("uni") ? Vote::uniform
                                           : Vote::ballot;
  instruction.flags = static_cast<std::uint32_t>(kind);
  instruction.destination = kind == Vote::ballot ? decoder.destination(statement, 0, Type::b32)
                                                 : decoder.predicate_destination(statement, operands[0]);
  instruction.source[0] = decoder.predicate(statement, operands[1]);
  instruction.negated = operands[1].negated;
  instruction.members = decoder.source(statement, 2, Type::b32);
  return finish(statement, instruction, vote);
}

bool decode_match(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const Type type = statement.type();
  instruction.destination = decoder.destination(statement, 0, Type::b32);
  instruction.source[0] = decoder.source(statement, 1, type);
  instruction.members = decoder.source(statement, 2, Type::b32);
  decode_second(decoder, statement, instruction);
  const bool wide = bytes_of(type) == 8;
  if (statement.has("all"))
    return finish(statement, instruction, wide ? match_all<std::uint64_t> : match_all<std::uint32_t>);
  return finish(statement, instruction, wide ? match_any<std::uint64_t> : match_any<std::uint32_t>);
}

}  // namespace

bool decode_lanes(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  if (word == "activemask") {
    instruction.destination = decoder.destination(statement, 0, Type::b32);
    return finish(statement, instruction, active_mask);
  }
  instruction.control = Control::members;
  if (word == "shfl") return decode_shuffle(decoder, statement, instruction);
  if (word == "vote") return decode_vote(decoder, statement, instruction);
  if (word == "match") return decode_match(decoder, statement, instruction);
  if (word == "redux") {
    const Type type = statement.type();
    instruction.destination = decoder.destination(statement, 0, type);
    instruction.source[0] = decoder.source(statement, 1, type);
    instruction.members = decoder.source(statement, 2, Type::b32);
    return finish(statement, instruction, reduction_of(statement, type));
  }
  if (word == "elect") {
    instruction.destination = decoder.destination(statement, 0, Type::b32);
    instruction.members = decoder.source(statement, 1, Type::b32);
    decode_second(decoder, statement, instruction);
    return finish(statement, instruction, elect);
  }
  instruction.control = Control::plain;
  return false;
}

}  // namespace cnnkernels::emulator
