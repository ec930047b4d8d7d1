// setp, set, testp, copysign.
#include <array>
#include <cmath>

#include "emulator/arithmetic/halves.h"
#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

enum class Comparison : std::uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
enum class Combination : std::uint8_t { none, conjunction, disjunction, exclusive };

struct Half {};
struct Bfloat16 {};

template <class T>
struct Traits {
  using Stored = T;
  static T load(T stored) { return stored; }
};
template <>
struct Traits<Half> {
  using Stored = std::uint16_t;
  static float load(std::uint16_t stored) { return half_to_float(stored); }
};
template <>
struct Traits<Bfloat16> {
  using Stored = std::uint16_t;
  static float load(std::uint16_t stored) { return bfloat16_to_float(stored); }
};

// A byte of 0 or 1 each, as a bit each.
template <int kCount>
std::array<Mask, kCount / kLanes> bits_of(const std::uint8_t (&truths)[kCount]) {
  std::array<Mask, kCount / kLanes> masks{};
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < kCount / kLanes; ++i) masks[i] |= Mask{truths[lane * (kCount / kLanes) + i]} << lane;
  return masks;
}

template <>
std::array<Mask, 1> bits_of(const std::uint8_t (&truths)[kLanes]) {
  Mask mask = 0;
  for (int i = 0; i < kLanes; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, truths + i, 8);
    mask |= static_cast<Mask>(eight * 0x0102040810204080u >> 56) << i;
  }
  return {mask};
}

template <class T, bool kPairs, auto kCompare>
std::array<Mask, kPairs ? 2 : 1> compared(Warp& warp, const Instruction& instruction) {
  using Stored = typename Traits<T>::Stored;
  constexpr int kCount = kValues<Stored, kPairs>;
  const Stored *a = warp.lanes<Stored>(instruction.source[0]), *b = warp.lanes<Stored>(instruction.source[1]);
  std::uint8_t truths[kCount];
  for (int i = 0; i < kCount; ++i) truths[i] = kCompare(Traits<T>::load(a[i]), Traits<T>::load(b[i]));
  return bits_of(truths);
}

constexpr auto equal = [](auto a, auto b) { return a == b; };
constexpr auto unequal = [](auto a, auto b) { return !(a == b); };
constexpr auto less = [](auto a, auto b) { return a < b; };
constexpr auto less_or_equal = [](auto a, auto b) { return a <= b; };
constexpr auto greater = [](auto a, auto b) { return a > b; };
constexpr auto greater_or_equal = [](auto a, auto b) { return a >= b; };
constexpr auto not_less = [](auto a, auto b) { return !(a < b); };
constexpr auto not_less_or_equal = [](auto a, auto b) { return !(a <= b); };
constexpr auto not_greater = [](auto a, auto b) { return !(a > b); };
constexpr auto not_greater_or_equal = [](auto a, auto b) { return !(a >= b); };
constexpr auto ordered_unequal = [](auto a, auto b) { return a < b || a > b; };
constexpr auto unordered_equal = [](auto a, auto b) { return !(a < b || a > b); };
constexpr auto both_numbers = [](auto a, auto b) { return a == a && b == b; };
constexpr auto any_nan = [](auto a, auto b) { return a != a || b != b; };

// Of floats, those with u are true of a NaN, and ne is not.
template <class T, bool kPairs>
std::array<Mask, kPairs ? 2 : 1> comparison(Warp& warp, const Instruction& instruction) {
  const auto which = static_cast<Comparison>(instruction.immediate);
  switch (which) {
    case Comparison::eq:
      return compared<T, kPairs, equal>(warp, instruction);
    case Comparison::lt:
      return compared<T, kPairs, less>(warp, instruction);
    case Comparison::le:
      return compared<T, kPairs, less_or_equal>(warp, instruction);
    case Comparison::gt:
      return compared<T, kPairs, greater>(warp, instruction);
    case Comparison::ge:
      return compared<T, kPairs, greater_or_equal>(warp, instruction);
    default:
      break;
  }
  if constexpr (!std::is_integral_v<T>) {
    switch (which) {
      case Comparison::ne:
        return compared<T, kPairs, ordered_unequal>(warp, instruction);
      case Comparison::equ:
        return compared<T, kPairs, unordered_equal>(warp, instruction);
      case Comparison::ltu:
        return compared<T, kPairs, not_greater_or_equal>(warp, instruction);
      case Comparison::leu:
        return compared<T, kPairs, not_greater>(warp, instruction);
      case Comparison::gtu:
        return compared<T, kPairs, not_less_or_equal>(warp, instruction);
      case Comparison::geu:
        return compared<T, kPairs, not_less>(warp, instruction);
      case Comparison::num:
        return compared<T, kPairs, both_numbers>(warp, instruction);
      case Comparison::nan:
        return compared<T, kPairs, any_nan>(warp, instruction);
      default:
        break;
    }
  }
  return compared<T, kPairs, unequal>(warp, instruction);  // ne of integers, neu
}

Mask combined(const Warp& warp, const Instruction& instruction, Mask value) {
  switch (static_cast<Combination>(instruction.flags)) {
    case Combination::none:
      return value;
    case Combination::conjunction:
      return value & warp.predicate_source(instruction, 2);
    case Combination::disjunction:
      return value | warp.predicate_source(instruction, 2);
    default:
      return value ^ warp.predicate_source(instruction, 2);
  }
}

// setp: p is the comparison, and q its opposite; of pairs they are the two halves'.
template <class T, bool kPairs>
void set_predicates(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto masks = comparison<T, kPairs>(warp, instruction);
  const Mask first = combined(warp, instruction, masks[0]);
  const Mask second = combined(warp, instruction, kPairs ? masks[masks.size() - 1] : ~masks[0]);
  warp.set_predicate(instruction.destination, first, lanes);
  if (instruction.second != kNone) warp.set_predicate(instruction.second, second, lanes);
}

// set: the result's type has its own truth: all ones of integers, 1 of floats.
std::uint32_t truth_of(Type type) {
  switch (type) {
    case Type::f32:
      return 0x3f800000;
    case Type::f16:
    case Type::f16x2:
      return 0x3c00;
    case Type::bf16:
    case Type::bf16x2:
      return 0x3f80;
    default:
      return bytes_of(type) == 2 ? 0xffff : 0xffffffff;
  }
}

template <class T, bool kPairs>
void set_values(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto masks = comparison<T, kPairs>(warp, instruction);
  const std::uint32_t truth = kPairs ? truth_of(instruction.type) & 0xffff : truth_of(instruction.type);
  Mask set[2] = {combined(warp, instruction, masks[0]), combined(warp, instruction, masks[masks.size() - 1])};
  if (bytes_of(instruction.type) == 2) {
    std::uint16_t results[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) results[lane] = set[0] >> lane & 1 ? truth : 0;
    put(warp, instruction.destination, results, lanes);
    return;
  }
  std::uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    results[lane] = set[0] >> lane & 1 ? truth : 0;
    if (kPairs && set[1] >> lane & 1) results[lane] |= truth << 16;
  }
  put(warp, instruction.destination, results, lanes);
}

// With .ftz, f32's subnormals are zero.
struct Flushed {};
template <>
struct Traits<Flushed> {
  using Stored = float;
  static float load(float stored) { return flushed(stored); }
};

struct Instances {
  Execute setp, set;
};

template <class T, bool kPairs = false>
constexpr Instances kInstances{set_predicates<T, kPairs>, set_values<T, kPairs>};

Instances instances_of(Type type, bool flushes) {
  switch (type) {
    case Type::b16:
    case Type::u16:
      return kInstances<std::uint16_t>;
    case Type::s16:
      return kInstances<std::int16_t>;
    case Type::b32:
    case Type::u32:
      return kInstances<std::uint32_t>;
    case Type::s32:
      return kInstances<std::int32_t>;
    case Type::b64:
    case Type::u64:
      return kInstances<std::uint64_t>;
    case Type::s64:
      return kInstances<std::int64_t>;
    case Type::f32:
      return flushes ? kInstances<Flushed> : kInstances<float>;
    case Type::f64:
      return kInstances<double>;
    case Type::f16:
      return kInstances<Half>;
    case Type::bf16:
      return kInstances<Bfloat16>;
    case Type::f16x2:
      return kInstances<Half, true>;
    case Type::bf16x2:
      return kInstances<Bfloat16, true>;
    default:
      return {};
  }
}

Comparison comparison_named(const Statement& statement, Type type) {
  static constexpr std::string_view kNames[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                                "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  static constexpr std::string_view kUnsigned[] = {"", "", "lo", "ls", "hi", "hs"};
  const std::string_view word = statement.word(1);
  for (int i = 0; i < 14; ++i)
    if (word == kNames[i]) {
      if (i >= static_cast<int>(Comparison::equ) && !is_float(type)) break;
      return static_cast<Comparison>(i);
    }
  for (int i = 2; i < 6; ++i)
    if (word == kUnsigned[i]) return static_cast<Comparison>(i);
  refuse(statement, "this comparison is not known");
}

bool decode_comparison(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::vector<Type> types = statement.types();
  const auto& operands = statement.operands;
  if (types.empty() || operands.size() < 3) refuse(statement, "a type or an operand is missing");
  const Type type = types.back();
  const bool predicates = statement.words[0] == "setp";
  instruction.immediate = static_cast<std::int64_t>(comparison_named(statement, type));
  if (predicates) {
    instruction.destination = decoder.predicate_destination(statement, operands[0]);
    if (!operands[0].second.empty())
      instruction.second = decoder.predicate_destination(statement, operands[0].second[0]);
  } else {
    instruction.type = types[0];
    instruction.destination = decoder.destination(statement, 0, types[0]);
  }
  for (int i = 0; i < 2; ++i) instruction.source[i] = decoder.source(statement, i + 1, type);
  if (operands.size() == 4) {
    const Combination combination = statement.has("and")   ? Combination::conjunction
                                    : statement.has("or")  ? Combination::disjunction
                                    : statement.has("xor") ? Combination::exclusive
                                                           : Combination::none;
    if (combination == Combination::none) refuse(statement, "a combination is missing");
    instruction.flags = static_cast<std::uint32_t>(combination);
    instruction.source[2] = decoder.predicate(statement, operands[3]);
    instruction.negated = operands[3].negated << 2;
  }
  const Instances instances = instances_of(type, statement.has("ftz"));
  return finish(statement, instruction, predicates ? instances.setp : instances.set);
}

template <class T>
void test_property(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  Mask result = 0;
  for_each_lane(lanes, [&](int lane) {
    const int kind = std::fpclassify(a[lane]);
    const bool truths[] = {kind != FP_NAN && kind != FP_INFINITE,
                           kind == FP_INFINITE,
                           kind != FP_NAN,
                           kind == FP_NAN,
                           kind == FP_NORMAL,
                           kind == FP_SUBNORMAL};
    result |= Mask{truths[instruction.immediate]} << lane;
  });
  warp.set_predicate(instruction.destination, result, lanes);
}

bool decode_test(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  static constexpr std::string_view kProperties[] = {"finite",     "infinite", "number",
                                                     "notanumber", "normal",   "subnormal"};
  const Type type = statement.type();
  instruction.immediate = -1;
  for (int i = 0; i < 6; ++i)
    if (statement.word(1) == kProperties[i]) instruction.immediate = i;
  if (instruction.immediate < 0 || statement.operands.empty())
    refuse(statement, "this property is not known");
  instruction.destination = decoder.predicate_destination(statement, statement.operands[0]);
  instruction.source[0] = decoder.source(statement, 1, type);
  return finish(statement, instruction,
                type == Type::f32   ? test_property<float>
                : type == Type::f64 ? test_property<double>
                                    : nullptr);
}

template <class T>
constexpr auto with_sign_of_first = [](T sign, T value) {
  constexpr T kSign = T{1} << (8 * sizeof(T) - 1);
  return static_cast<T>((value & ~kSign) | (sign & kSign));
};

}  // namespace

bool decode_compare(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  if (word == "setp" || word == "set") return decode_comparison(decoder, statement, instruction);
  if (word == "testp") return decode_test(decoder, statement, instruction);
  if (word != "copysign") return false;
  const Type type = statement.type();
  decode_operands(decoder, statement, instruction, 2, type);
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  return finish(statement, instruction,
                type == Type::f32   ? binary<u32, u32, with_sign_of_first<u32>>
                : type == Type::f64 ? binary<u64, u64, with_sign_of_first<u64>>
                                    : nullptr);
}

}  // namespace cnnkernels::emulator
