// add, sub, mul, mad, div, rem, min, max, abs, neg, sad of integers, and their carry chains.
#include <algorithm>
#include <limits>

#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
struct Twice {
  using type = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
};
template <>
struct Twice<std::int64_t> {
  using type = __int128;
};
template <>
struct Twice<std::uint64_t> {
  using type = unsigned __int128;
};

// Of the types that are as wide as int or wider, sums and products wrap; narrower ones are cut when they are
// stored.
constexpr auto add = [](auto a, auto b) { return Unsigned<decltype(a)>(a) + Unsigned<decltype(b)>(b); };
constexpr auto subtract = [](auto a, auto b) { return Unsigned<decltype(a)>(a) - Unsigned<decltype(b)>(b); };
constexpr auto multiply = [](auto a, auto b) {
  return static_cast<std::uint64_t>(Unsigned<decltype(a)>(a)) * Unsigned<decltype(b)>(b);
};
constexpr auto multiply_high = [](auto a, auto b) {
  using T = decltype(a);
  using Product = typename Twice<T>::type;
  return static_cast<T>((Product(a) * Product(b)) >> (8 * sizeof(T)));
};
constexpr auto multiply_24 = [](auto a, auto b) {
  const auto cut = [](auto v) { return std::int64_t(v) << 40 >> 40; };
  return cut(a) * cut(b);
};
constexpr auto multiply_24_unsigned = [](auto a, auto b) {
  return std::uint64_t(a & 0xffffff) * std::uint64_t(b & 0xffffff);
};
constexpr auto divide = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return static_cast<T>(0 - Unsigned<T>(a));
  return static_cast<T>(a / b);
};
constexpr auto remainder_of = [](auto a, auto b) {
  using T = decltype(a);
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return T{0};
  return static_cast<T>(a % b);
};
constexpr auto smaller = [](auto a, auto b) { return a < b ? a : b; };
constexpr auto larger = [](auto a, auto b) { return a > b ? a : b; };
constexpr auto smaller_relu = [](auto a, auto b) { return std::max(a < b ? a : b, decltype(a){0}); };
constexpr auto larger_relu = [](auto a, auto b) { return std::max(a > b ? a : b, decltype(a){0}); };
constexpr auto smallest = [](auto a, auto b, auto c) { return std::min({a, b, c}); };
constexpr auto largest = [](auto a, auto b, auto c) { return std::max({a, b, c}); };
constexpr auto negate = [](auto a) { return 0 - Unsigned<decltype(a)>(a); };
constexpr auto absolute = [](auto a) {
  return a < 0 ? 0 - Unsigned<decltype(a)>(a) : Unsigned<decltype(a)>(a);
};
constexpr auto multiply_add = [](auto a, auto b, auto c) {
  return multiply(a, b) + Unsigned<decltype(c)>(c);
};
constexpr auto multiply_high_add = [](auto a, auto b, auto c) {
  return Unsigned<decltype(c)>(multiply_high(a, b)) + Unsigned<decltype(c)>(c);
};
constexpr auto multiply_24_add = [](auto a, auto b, auto c) { return multiply_24(a, b) + c; };
constexpr auto multiply_24_add_unsigned = [](auto a, auto b, auto c) {
  return multiply_24_unsigned(a, b) + c;
};
constexpr auto difference_add = [](auto a, auto b, auto c) {
  using U = Unsigned<decltype(a)>;
  return static_cast<U>((a < b ? U(b) - U(a) : U(a) - U(b)) + U(c));
};
// Of s32 alone.
constexpr auto saturate = [](std::int64_t value) {
  return std::clamp<std::int64_t>(value, std::numeric_limits<std::int32_t>::min(),
                                  std::numeric_limits<std::int32_t>::max());
};
constexpr auto add_saturated = [](std::int32_t a, std::int32_t b) { return saturate(std::int64_t{a} + b); };
constexpr auto subtract_saturated = [](std::int32_t a, std::int32_t b) {
  return saturate(std::int64_t{a} - b);
};
constexpr auto multiply_high_add_saturated = [](std::int32_t a, std::int32_t b, std::int32_t c) {
  return saturate(std::int64_t{multiply_high(a, b)} + c);
};

// A product of twice the width, and one added to something of that width.
constexpr auto wide_product = [](auto a, auto b) {
  using Product = typename Twice<decltype(a)>::type;
  return Product(a) * Product(b);
};
constexpr auto wide_product_add = [](auto a, auto b, auto c) {
  return static_cast<std::uint64_t>(wide_product(a, b)) + static_cast<std::uint64_t>(c);
};

struct Wide {
  Type result;
  Execute multiply, add;
};

Wide wide_of(Type type) {
  using u16 = std::uint16_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  using s16 = std::int16_t;
  using s32 = std::int32_t;
  using s64 = std::int64_t;
  switch (type) {
    case Type::u16:
      return {Type::u32, binary<u32, u16, wide_product>, ternary<u32, u16, u32, wide_product_add>};
    case Type::s16:
      return {Type::s32, binary<s32, s16, wide_product>, ternary<s32, s16, s32, wide_product_add>};
    case Type::u32:
      return {Type::u64, binary<u64, u32, wide_product>, ternary<u64, u32, u64, wide_product_add>};
    case Type::s32:
      return {Type::s64, binary<s64, s32, wide_product>, ternary<s64, s32, s64, wide_product_add>};
    default:
      return {Type::none, nullptr, nullptr};
  }
}

bool decode_wide(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const Type type = statement.type();
  const bool adds = statement.words[0] == "mad";
  const Wide wide = wide_of(type);
  if (wide.result == Type::none) refuse(statement, "this type is not known");
  instruction.destination = decoder.destination(statement, 0, wide.result);
  instruction.source[0] = decoder.source(statement, 1, type);
  instruction.source[1] = decoder.source(statement, 2, type);
  if (adds) instruction.source[2] = decoder.source(statement, 3, wide.result);
  return finish(statement, instruction, adds ? wide.add : wide.multiply);
}

// add.cc, addc, sub.cc, subc, mad.cc, madc: what carries in and out stands in Warp::carry.
constexpr std::uint32_t kCarryIn = 1, kCarryOut = 2, kSubtract = 4, kLow = 8, kHigh = 16;

template <class T>
void carry_chain(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T *a = warp.lanes<T>(instruction.source[0]), *b = warp.lanes<T>(instruction.source[1]);
  const bool multiplies = instruction.flags & (kLow | kHigh);
  const T* c = multiplies ? warp.lanes<T>(instruction.source[2]) : nullptr;
  T results[kLanes];
  Mask carries = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    using Sum = unsigned __int128;
    Sum x = Unsigned<T>(a[lane]), y = Unsigned<T>(b[lane]);
    if (multiplies) {
      x = instruction.flags & kLow ? Unsigned<T>(multiply(a[lane], b[lane]))
                                   : Unsigned<T>(multiply_high(a[lane], b[lane]));
      y = Unsigned<T>(c[lane]);
    }
    const Sum carry = instruction.flags & kCarryIn ? warp.carry >> lane & 1 : 0;
    const Sum sum = instruction.flags & kSubtract ? x - y - carry : x + y + carry;
    results[lane] = static_cast<T>(sum);
    carries |= Mask(sum >> (8 * sizeof(T)) & 1) << lane;
  }
  put(warp, instruction.destination, results, lanes);
  if (instruction.flags & kCarryOut) warp.carry = (warp.carry & ~lanes) | (carries & lanes);
}

bool decode_carry(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const bool multiplies = word[0] == 'm';
  instruction.flags = (word.back() == 'c' ? kCarryIn : 0) | (statement.has("cc") ? kCarryOut : 0) |
                      (word[0] == 's' ? kSubtract : 0);
  if (multiplies) instruction.flags |= statement.has("hi") ? kHigh : kLow;
  const Type type = statement.type();
  decode_operands(decoder, statement, instruction, multiplies ? 3 : 2, type);
  switch (type) {
    case Type::u32:
    case Type::b32:
      return finish(statement, instruction, carry_chain<std::uint32_t>);
    case Type::s32:
      return finish(statement, instruction, carry_chain<std::int32_t>);
    case Type::u64:
    case Type::b64:
      return finish(statement, instruction, carry_chain<std::uint64_t>);
    case Type::s64:
      return finish(statement, instruction, carry_chain<std::int64_t>);
    default:
      refuse(statement, "this type is not known");
  }
}

Execute min_or_max(const Statement& statement, Type type, int count) {
  const bool min = statement.words[0] == "min";
  if (count == 3) return min ? ternary_of<smallest>(type) : ternary_of<largest>(type);
  if (!statement.has("relu")) return min ? binary_of<smaller>(type) : binary_of<larger>(type);
  switch (type) {
    case Type::s32:
      return min ? binary<std::int32_t, std::int32_t, smaller_relu>
                 : binary<std::int32_t, std::int32_t, larger_relu>;
    case Type::s16x2:
      return min ? binary<std::int16_t, std::int16_t, smaller_relu, true>
                 : binary<std::int16_t, std::int16_t, larger_relu, true>;
    default:
      return nullptr;
  }
}

// Null where the word is no instruction of integers.
Execute execute_of(const Statement& statement, Type type, int count) {
  using s32 = std::int32_t;
  using u32 = std::uint32_t;
  const std::string_view word = statement.words[0];
  const bool saturated = statement.has("sat") && type == Type::s32, high = statement.has("hi");
  if (word == "add") return saturated ? binary<s32, s32, add_saturated> : binary_of<add>(type);
  if (word == "sub") return saturated ? binary<s32, s32, subtract_saturated> : binary_of<subtract>(type);
  if (word == "mul") return high ? binary_of<multiply_high>(type) : binary_of<multiply>(type);
  if (word == "mad" && saturated) return ternary<s32, s32, s32, multiply_high_add_saturated>;
  if (word == "mad") return high ? ternary_of<multiply_high_add>(type) : ternary_of<multiply_add>(type);
  if (word == "div") return binary_of<divide>(type);
  if (word == "rem") return binary_of<remainder_of>(type);
  if (word == "min" || word == "max") return min_or_max(statement, type, count);
  if (word == "neg") return unary_of<negate>(type);
  if (word == "abs") return unary_of<absolute>(type);
  if (word == "sad") return ternary_of<difference_add>(type);
  if (high) return nullptr;
  if (word == "mul24" && type == Type::s32) return binary<s32, s32, multiply_24>;
  if (word == "mul24" && type == Type::u32) return binary<u32, u32, multiply_24_unsigned>;
  if (word == "mad24" && type == Type::s32) return ternary<s32, s32, s32, multiply_24_add>;
  if (word == "mad24" && type == Type::u32) return ternary<u32, u32, u32, multiply_24_add_unsigned>;
  return nullptr;
}

bool is_integer_word(std::string_view word) {
  static constexpr std::string_view kWords[] = {"add", "sub", "mul", "mad", "div",   "rem",  "min",
                                                "max", "neg", "abs", "sad", "mul24", "mad24"};
  return std::find(std::begin(kWords), std::end(kWords), word) != std::end(kWords);
}

}  // namespace

bool decode_integer(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const bool carries = word == "addc" || word == "subc" || word == "madc";
  if (!carries && !is_integer_word(word)) return false;
  const Type type = statement.type();
  if (is_float(type)) return false;
  if (carries || statement.has("cc")) return decode_carry(decoder, statement, instruction);
  if (statement.has("wide")) return decode_wide(decoder, statement, instruction);
  const int count = static_cast<int>(statement.operands.size()) - 1;
  const int wanted = word == "neg" || word == "abs"                      ? 1
                     : word == "mad" || word == "sad" || word == "mad24" ? 3
                                                                         : 2;
  const bool third = count == 3 && (word == "min" || word == "max");
  decode_operands(decoder, statement, instruction, third ? 3 : wanted, type);
  return finish(statement, instruction, execute_of(statement, type, count));
}

}  // namespace cnnkernels::emulator
