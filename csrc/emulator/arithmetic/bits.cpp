// and, or, xor, not, shifts, fields of bits, counts of bits, lop3, prmt.
#include <algorithm>
#include <bit>

#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

template <class T>
inline constexpr int kBits = 8 * sizeof(T);
template <class T>
using Unsigned = std::make_unsigned_t<T>;

constexpr auto bit_and = [](auto a, auto b) { return a & b; };
constexpr auto bit_or = [](auto a, auto b) { return a | b; };
constexpr auto bit_xor = [](auto a, auto b) { return a ^ b; };
constexpr auto bit_not = [](auto a) { return ~a; };
constexpr auto is_zero = [](auto a) { return a == 0; };
constexpr auto reversed = [](auto a) {
  decltype(a) result = 0;
  for (int bit = 0; bit < kBits<decltype(a)>; ++bit)
    result = static_cast<decltype(a)>(result << 1 | (a >> bit & 1));
  return result;
};
constexpr auto count_ones = [](auto a) { return std::popcount(a); };
constexpr auto count_leading_zeros = [](auto a) { return std::countl_zero(a); };
// The place of the highest bit that is no sign; all ones where there is none.
constexpr auto find_highest = [](auto a) {
  using U = Unsigned<decltype(a)>;
  const U bits = a < 0 ? static_cast<U>(~a) : static_cast<U>(a);
  return static_cast<std::uint32_t>(kBits<U> - 1 - std::countl_zero(bits));
};
constexpr auto find_highest_shift = [](auto a) {
  const std::uint32_t place = find_highest(a);
  return place == ~0u ? place : kBits<decltype(a)> - 1 - place;
};

// Amounts are 32 bits wide, and too large ones shift everything out.
template <class T>
void shift_left(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  const std::uint32_t* amounts = warp.lanes<std::uint32_t>(instruction.source[1]);
  T results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] =
        amounts[lane] < kBits<T> ? static_cast<T>(a[lane] << (amounts[lane] & (kBits<T> - 1))) : T{0};
  put(warp, instruction.destination, results, lanes);
}

template <class T>
void shift_right(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  const std::uint32_t* amounts = warp.lanes<std::uint32_t>(instruction.source[1]);
  T results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const T all = static_cast<T>(a[lane] < 0 ? -1 : 0);
    results[lane] =
        amounts[lane] < kBits<T> ? static_cast<T>(a[lane] >> (amounts[lane] & (kBits<T> - 1))) : all;
  }
  put(warp, instruction.destination, results, lanes);
}

template <class T>
T extract(T value, std::uint32_t from, std::uint32_t length) {
  using U = Unsigned<T>;
  from &= 255;
  length &= 255;
  const std::uint32_t top = std::min<std::uint32_t>(from + length - 1, kBits<T> - 1);
  const bool sign = std::is_signed_v<T> && length && (U(value) >> top & 1);
  const std::uint32_t have = from < kBits<T> ? std::min<std::uint32_t>(length, kBits<T> - from) : 0;
  U result = have ? static_cast<U>(U(value) >> from) : U{0};
  if (have < kBits<T>) {
    const U mask = (U{1} << have) - 1;
    result = sign ? result | ~mask : result & mask;
  }
  return static_cast<T>(result);
}

template <class T>
void extract_field(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T* a = warp.lanes<T>(instruction.source[0]);
  const std::uint32_t *from = warp.lanes(instruction.source[1]), *length = warp.lanes(instruction.source[2]);
  T results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = extract(a[lane], from[lane], length[lane]);
  put(warp, instruction.destination, results, lanes);
}

template <class T>
void insert_field(Warp& warp, const Instruction& instruction, Mask lanes) {
  const T *field = warp.lanes<T>(instruction.source[0]), *into = warp.lanes<T>(instruction.source[1]);
  const std::uint32_t *places = warp.lanes(instruction.source[2]),
                      *lengths = warp.lanes(instruction.source[3]);
  T results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint32_t place = places[lane] & 255, length = lengths[lane] & 255;
    T mask = length >= kBits<T> ? ~T{0} : (T{1} << length) - 1;
    mask = place < kBits<T> ? mask << place : T{0};
    const T moved = place < kBits<T> ? field[lane] << place : T{0};
    results[lane] = (into[lane] & ~mask) | (moved & mask);
  }
  put(warp, instruction.destination, results, lanes);
}

// The function of three bits that the table's eight bits are, one for each of their values.
constexpr std::uint32_t look_up(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t table) {
  std::uint32_t result = 0;
  for (int entry = 0; entry < 8; ++entry) {
    if (!(table >> entry & 1)) continue;
    result |= (entry & 4 ? a : ~a) & (entry & 2 ? b : ~b) & (entry & 1 ? c : ~c);
  }
  return result;
}

void look_up_bits(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t *a = warp.lanes(instruction.source[0]), *b = warp.lanes(instruction.source[1]);
  const std::uint32_t* c = warp.lanes(instruction.source[2]);
  const auto table = static_cast<std::uint32_t>(instruction.immediate);
  std::uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = look_up(a[lane], b[lane], c[lane], table);
  put(warp, instruction.destination, results, lanes);
}

constexpr std::uint32_t kLeft = 1, kWrap = 2;

void funnel_shift(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t *low = warp.lanes(instruction.source[0]), *high = warp.lanes(instruction.source[1]);
  const std::uint32_t* amounts = warp.lanes(instruction.source[2]);
  std::uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint64_t both = std::uint64_t{high[lane]} << 32 | low[lane];
    const std::uint32_t amount =
        instruction.flags & kWrap ? amounts[lane] & 31 : std::min(amounts[lane], 32u);
    results[lane] = static_cast<std::uint32_t>(both >> (instruction.flags & kLeft ? 32 - amount : amount));
  }
  put(warp, instruction.destination, results, lanes);
}

// Four selectors of four bits from the control, as the mode has it.
enum class Permute : std::uint8_t { generic, f4e, b4e, rc8, ecl, ecr, rc16 };

constexpr std::uint32_t selectors(Permute mode, std::uint32_t control) {
  const std::uint32_t c = control & 3;
  switch (mode) {
    case Permute::generic:
      return control;
    case Permute::f4e:
      return 0x3210 + 0x1111 * c;
    case Permute::b4e:
      return (0x5670 + 0x1111 * c) & 0x7777;
    case Permute::rc8:
      return 0x1111 * c;
    case Permute::ecl:
      return std::max(3u, c) << 12 | std::max(2u, c) << 8 | std::max(1u, c) << 4 | c;
    case Permute::ecr:
      return c << 12 | std::min(2u, c) << 8 | std::min(1u, c) << 4;
    case Permute::rc16:
      return c & 1 ? 0x3232 : 0x1010;
  }
  return 0;
}

void permute_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  const std::uint32_t *a = warp.lanes(instruction.source[0]), *b = warp.lanes(instruction.source[1]);
  const std::uint32_t* controls = warp.lanes(instruction.source[2]);
  std::uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint64_t bytes = std::uint64_t{b[lane]} << 32 | a[lane];
    const std::uint32_t select = selectors(static_cast<Permute>(instruction.flags), controls[lane]);
    std::uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t nibble = select >> 4 * i & 15;
      std::uint32_t byte = bytes >> 8 * (nibble & 7) & 255;
      if (nibble & 8) byte = byte & 128 ? 255 : 0;  // the sign alone
      result |= byte << 8 * i;
    }
    results[lane] = result;
  }
  put(warp, instruction.destination, results, lanes);
}

Permute permute_mode(const Statement& statement) {
  static constexpr std::string_view kModes[] = {"", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  for (int mode = 1; mode < 7; ++mode)
    if (statement.has(kModes[mode])) return static_cast<Permute>(mode);
  return Permute::generic;
}

// Of 2, 4 and 8 bytes, signed or not.
template <template <class> class Holder>
Execute of_type(Type type) {
  switch (type) {
    case Type::b16:
    case Type::u16:
      return Holder<std::uint16_t>::execute;
    case Type::s16:
      return Holder<std::int16_t>::execute;
    case Type::b32:
    case Type::u32:
      return Holder<std::uint32_t>::execute;
    case Type::s32:
      return Holder<std::int32_t>::execute;
    case Type::b64:
    case Type::u64:
      return Holder<std::uint64_t>::execute;
    case Type::s64:
      return Holder<std::int64_t>::execute;
    default:
      return nullptr;
  }
}

template <class T>
struct LeftShift {
  static constexpr Execute execute = shift_left<T>;
};
template <class T>
struct RightShift {
  static constexpr Execute execute = shift_right<T>;
};

template <auto kOperation>
Execute count_of(Type type) {
  switch (type) {
    case Type::b32:
    case Type::u32:
      return unary<std::uint32_t, std::uint32_t, kOperation>;
    case Type::b64:
    case Type::u64:
      return unary<std::uint32_t, std::uint64_t, kOperation>;
    default:
      return nullptr;
  }
}

template <auto kOperation>
Execute signed_count_of(Type type) {
  if (type == Type::s32) return unary<std::uint32_t, std::int32_t, kOperation>;
  if (type == Type::s64) return unary<std::uint32_t, std::int64_t, kOperation>;
  return count_of<kOperation>(type);
}

bool decode_logic(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const Type type = statement.type();
  if (type == Type::pred) return false;
  const bool one = word == "not" || word == "cnot" || word == "brev";
  decode_operands(decoder, statement, instruction, one ? 1 : 2, type);
  if (word == "and") return finish(statement, instruction, binary_of<bit_and>(type));
  if (word == "or") return finish(statement, instruction, binary_of<bit_or>(type));
  if (word == "xor") return finish(statement, instruction, binary_of<bit_xor>(type));
  if (word == "not") return finish(statement, instruction, unary_of<bit_not>(type));
  if (word == "cnot") return finish(statement, instruction, unary_of<is_zero>(type));
  if (type == Type::b32) return finish(statement, instruction, unary<std::uint32_t, std::uint32_t, reversed>);
  return finish(statement, instruction,
                type == Type::b64 ? unary<std::uint64_t, std::uint64_t, reversed> : nullptr);
}

bool decode_shift(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const Type type = statement.type();
  instruction.destination = decoder.destination(statement, 0, type);
  instruction.source[0] = decoder.source(statement, 1, type);
  instruction.source[1] = decoder.source(statement, 2, Type::u32);
  return finish(statement, instruction,
                statement.words[0] == "shl" ? of_type<LeftShift>(type) : of_type<RightShift>(type));
}

bool decode_count(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const Type type = statement.type();
  instruction.destination = decoder.destination(statement, 0, Type::u32);
  instruction.source[0] = decoder.source(statement, 1, type);
  if (word == "popc") return finish(statement, instruction, count_of<count_ones>(type));
  if (word == "clz") return finish(statement, instruction, count_of<count_leading_zeros>(type));
  return finish(statement, instruction,
                statement.has("shiftamt") ? signed_count_of<find_highest_shift>(type)
                                          : signed_count_of<find_highest>(type));
}

bool decode_field(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const bool inserts = statement.words[0] == "bfi";
  const Type type = statement.type();
  const int values = inserts ? 2 : 1;
  instruction.destination = decoder.destination(statement, 0, type);
  for (int i = 0; i < values + 2; ++i)
    instruction.source[i] = decoder.source(statement, i + 1, i < values ? type : Type::u32);
  if (inserts) {
    if (type == Type::b32) return finish(statement, instruction, insert_field<std::uint32_t>);
    return finish(statement, instruction, type == Type::b64 ? insert_field<std::uint64_t> : nullptr);
  }
  switch (type) {
    case Type::u32:
      return finish(statement, instruction, extract_field<std::uint32_t>);
    case Type::s32:
      return finish(statement, instruction, extract_field<std::int32_t>);
    case Type::u64:
      return finish(statement, instruction, extract_field<std::uint64_t>);
    case Type::s64:
      return finish(statement, instruction, extract_field<std::int64_t>);
    default:
      refuse(statement, "this type is not known");
  }
}

}  // namespace

bool decode_bits(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  if (word == "and" || word == "or" || word == "xor" || word == "not" || word == "cnot" || word == "brev")
    return decode_logic(decoder, statement, instruction);
  if (word == "shl" || word == "shr") return decode_shift(decoder, statement, instruction);
  if (word == "popc" || word == "clz" || word == "bfind")
    return decode_count(decoder, statement, instruction);
  if (word == "bfe" || word == "bfi") return decode_field(decoder, statement, instruction);
  if (word == "lop3") {
    if (statement.operands.size() != 5) refuse(statement, "the form with a predicate is not known");
    instruction.destination = decoder.destination(statement, 0, Type::b32);
    for (int i = 0; i < 3; ++i) instruction.source[i] = decoder.source(statement, i + 1, Type::b32);
    instruction.immediate = decoder.number(statement, 4);
    return finish(statement, instruction, look_up_bits);
  }
  if (word == "shf") {
    instruction.flags = (statement.has("l") ? kLeft : 0) | (statement.has("wrap") ? kWrap : 0);
    decode_operands(decoder, statement, instruction, 3, Type::b32);
    return finish(statement, instruction, funnel_shift);
  }
  if (word == "prmt") {
    instruction.flags = static_cast<std::uint32_t>(permute_mode(statement));
    decode_operands(decoder, statement, instruction, 3, Type::b32);
    return finish(statement, instruction, permute_bytes);
  }
  return false;
}

}  // namespace cnnkernels::emulator
