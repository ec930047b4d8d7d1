// cvt: the lanes are read as integers or doubles, changed, and written as the result's type.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>

#include "emulator/arithmetic/halves.h"
#include "emulator/arithmetic/lanes.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

struct Conversion : Details {
  Type to = Type::none, from = Type::none;
  std::uint8_t to_bytes = 0, from_bytes = 0;  // of the registers
  Rounding rounding = Rounding::nearest;
  bool to_integer_value = false;  // .rni and the like
  bool saturates = false, flushes = false, relu = false, finite = false;
};

bool is_integer(Type type) { return type >= Type::b8 && type <= Type::s64 && type != Type::u16x2; }

template <class Function>
auto with_register(int bytes, Function&& function) {
  switch (bytes) {
    case 1:
      return function(std::uint8_t{});
    case 2:
      return function(std::uint16_t{});
    case 4:
      return function(std::uint32_t{});
    default:
      return function(std::uint64_t{});
  }
}

// The low bits of a register as the integer type has them.
template <class Register>
void read_integers(const Register* from, Type type, std::int64_t (&values)[kLanes]) {
  const auto read = [&](auto cut) {
    for (int lane = 0; lane < kLanes; ++lane)
      values[lane] = static_cast<std::int64_t>(static_cast<decltype(cut)>(from[lane]));
  };
  switch (type) {
    case Type::s8:
      return read(std::int8_t{});
    case Type::s16:
      return read(std::int16_t{});
    case Type::s32:
      return read(std::int32_t{});
    default:
      break;
  }
  switch (bytes_of(type)) {
    case 1:
      return read(std::uint8_t{});
    case 2:
      return read(std::uint16_t{});
    case 4:
      return read(std::uint32_t{});
    default:
      return read(std::uint64_t{});
  }
}

void read_integers(Warp& warp, Slot slot, int bytes, Type type, std::int64_t (&values)[kLanes]) {
  with_register(bytes, [&](auto word) { read_integers(warp.lanes<decltype(word)>(slot), type, values); });
}

// A result narrower than its register is extended there, by its sign if it has one.
void write_integers(Warp& warp, const Instruction& instruction, const Conversion& conversion,
                    const std::int64_t (&values)[kLanes], Mask lanes) {
  const bool narrow = bytes_of(conversion.to) < conversion.to_bytes;
  std::int64_t cut[kLanes];
  if (narrow) read_integers(reinterpret_cast<const std::uint64_t*>(values), conversion.to, cut);
  const std::int64_t* from = narrow ? cut : values;
  with_register(conversion.to_bytes, [&](auto word) {
    decltype(word) results[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) results[lane] = static_cast<decltype(word)>(from[lane]);
    put(warp, instruction.destination, results, lanes);
  });
}

void read_floats(Warp& warp, Slot slot, Type type, double (&values)[kLanes]) {
  switch (type) {
    case Type::f32:
      for (int lane = 0; lane < kLanes; ++lane) values[lane] = warp.lanes<float>(slot)[lane];
      break;
    case Type::f64:
      std::memcpy(values, warp.lanes<double>(slot), sizeof values);
      break;
    case Type::f16:
      for (int lane = 0; lane < kLanes; ++lane)
        values[lane] = half_to_float(warp.lanes<std::uint16_t>(slot)[lane]);
      break;
    case Type::bf16:
      for (int lane = 0; lane < kLanes; ++lane)
        values[lane] = bfloat16_to_float(warp.lanes<std::uint16_t>(slot)[lane]);
      break;
    default:
      fault("a conversion from %s", name_of(type));
  }
}

int host_mode(Rounding rounding) {
  switch (rounding) {
    case Rounding::zero:
      return FE_TOWARDZERO;
    case Rounding::down:
      return FE_DOWNWARD;
    case Rounding::up:
      return FE_UPWARD;
    default:
      return FE_TONEAREST;
  }
}

// With the host's rounding set; the optimizer must not take it past.
template <class From>
__attribute__((noinline)) float to_float_now(From value) {
  return static_cast<float>(value);
}
template <class From>
__attribute__((noinline)) double to_double_now(From value) {
  return static_cast<double>(value);
}

template <class Function>
auto rounded(Rounding rounding, Function&& function) {
  if (rounding == Rounding::nearest) return function();
  const int before = std::fegetround();
  std::fesetround(host_mode(rounding));
  const auto result = function();
  std::fesetround(before);
  return result;
}

double to_integer_value(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::zero:
      return std::trunc(value);
    case Rounding::down:
      return std::floor(value);
    case Rounding::up:
      return std::ceil(value);
    default:
      return std::nearbyint(value);
  }
}

// Bits of the result's type.
std::uint64_t to_float_type(double value, const Conversion& conversion) {
  if (conversion.saturates) value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (conversion.relu && value < 0) value = 0;
  const Rounding rounding = conversion.rounding;
  switch (conversion.to) {
    case Type::f64:
      return std::bit_cast<std::uint64_t>(value);
    case Type::f32: {
      float result = rounded(rounding, [&] { return to_float_now(value); });
      if (conversion.flushes) result = flushed(result);
      return std::bit_cast<std::uint32_t>(canonical(result));
    }
    case Type::f16:
      return encode(kF16, value, rounding, conversion.finite);
    case Type::bf16:
      return encode(kBf16, value, rounding, conversion.finite);
    case Type::e4m3:
      return encode(kE4m3, value, rounding, true);
    case Type::e5m2:
      return encode(kE5m2, value, rounding, true);
    case Type::tf32:
      return encode_tf32(static_cast<float>(value), rounding);
    default:
      fault("a conversion to %s", name_of(conversion.to));
  }
}

void write_bits(Warp& warp, const Instruction& instruction, int bytes, const std::uint64_t (&values)[kLanes],
                Mask lanes) {
  with_register(bytes, [&](auto word) {
    decltype(word) results[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) results[lane] = static_cast<decltype(word)>(values[lane]);
    put(warp, instruction.destination, results, lanes);
  });
}

const Conversion& conversion_of(const Instruction& instruction) {
  return static_cast<const Conversion&>(*instruction.details);
}

std::int64_t clamped(std::int64_t value, const Conversion& conversion) {
  const int bits = 8 * bytes_of(conversion.to);
  const bool large = conversion.from == Type::u64 && value < 0;  // above all of s64
  if (is_signed(conversion.to)) {
    const std::int64_t most = std::numeric_limits<std::int64_t>::max() >> (64 - bits);
    return large ? most : std::clamp(value, -most - 1, most);
  }
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max() >> (64 - bits);
  if (value < 0 && !large) return 0;
  return static_cast<std::int64_t>(std::min(static_cast<std::uint64_t>(value), most));
}

void integer_to_integer(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  std::int64_t values[kLanes];
  read_integers(warp, instruction.source[0], conversion.from_bytes, conversion.from, values);
  if (conversion.saturates)
    for (std::int64_t& value : values) value = clamped(value, conversion);
  write_integers(warp, instruction, conversion, values, lanes);
}

void integer_to_float(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  std::int64_t values[kLanes];
  read_integers(warp, instruction.source[0], conversion.from_bytes, conversion.from, values);
  const bool unsigned_64 = bytes_of(conversion.from) == 8 && !is_signed(conversion.from);
  std::uint64_t results[kLanes];
  if (conversion.to == Type::f32 && conversion.rounding == Rounding::nearest && !conversion.saturates &&
      !unsigned_64) {
    for (int lane = 0; lane < kLanes; ++lane)
      results[lane] = std::bit_cast<std::uint32_t>(static_cast<float>(values[lane]));
    return write_bits(warp, instruction, conversion.to_bytes, results, lanes);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::int64_t value = values[lane];
    const auto magnitude = static_cast<std::uint64_t>(value);
    const auto to_float = [&] { return unsigned_64 ? to_float_now(magnitude) : to_float_now(value); };
    const auto to_double = [&] { return unsigned_64 ? to_double_now(magnitude) : to_double_now(value); };
    if (conversion.to == Type::f32) {
      const float result = rounded(conversion.rounding, to_float);
      results[lane] =
          std::bit_cast<std::uint32_t>(conversion.saturates ? std::clamp(result, 0.0f, 1.0f) : result);
    } else if (conversion.to == Type::f64) {
      results[lane] = std::bit_cast<std::uint64_t>(rounded(conversion.rounding, to_double));
    } else {  // towards zero and made odd, so that rounding again is as rounding once
      double wide = rounded(Rounding::zero, to_double);
      const bool inexact = unsigned_64 ? static_cast<unsigned __int128>(wide) != magnitude
                                       : static_cast<__int128>(wide) != value;
      if (inexact) wide = std::bit_cast<double>(std::bit_cast<std::uint64_t>(wide) | 1);
      results[lane] = to_float_type(wide, conversion);
    }
  }
  write_bits(warp, instruction, conversion.to_bytes, results, lanes);
}

// Out of range is the nearest that there is; a NaN is 0, of 64 bits the top bit alone.
std::int64_t to_integer(double value, Type type) {
  const int bits = 8 * bytes_of(type);
  if (std::isnan(value)) return bits == 64 ? std::numeric_limits<std::int64_t>::min() : 0;
  if (is_signed(type)) {
    const std::int64_t most = std::numeric_limits<std::int64_t>::max() >> (64 - bits);
    const double limit = std::ldexp(1.0, bits - 1);
    return value < -limit ? -most - 1 : value >= limit ? most : static_cast<std::int64_t>(value);
  }
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max() >> (64 - bits);
  const double limit = std::ldexp(1.0, bits);
  return static_cast<std::int64_t>(value <= 0       ? 0
                                   : value >= limit ? most
                                                    : static_cast<std::uint64_t>(value));
}

void read_prepared(Warp& warp, const Instruction& instruction, int which, double (&values)[kLanes]) {
  const Conversion& conversion = conversion_of(instruction);
  read_floats(warp, instruction.source[which], conversion.from, values);
  if (conversion.flushes && conversion.from == Type::f32)
    for (double& value : values) value = flushed(static_cast<float>(value));
  if (conversion.to_integer_value)
    for (double& value : values) value = to_integer_value(value, conversion.rounding);
}

void float_to_integer(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  double values[kLanes];
  read_prepared(warp, instruction, 0, values);
  std::int64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = to_integer(values[lane], conversion.to);
  write_integers(warp, instruction, conversion, results, lanes);
}

void float_to_float(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  double values[kLanes];
  read_prepared(warp, instruction, 0, values);
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = to_float_type(values[lane], conversion);
  write_bits(warp, instruction, conversion.to_bytes, results, lanes);
}

// The conversions that kernels are full of.
template <auto kConvert>
void narrow(Warp& warp, const Instruction& instruction, Mask lanes) {
  unary<std::uint16_t, float, kConvert>(warp, instruction, lanes);
}
template <auto kConvert>
void widen(Warp& warp, const Instruction& instruction, Mask lanes) {
  unary<float, std::uint16_t, [](std::uint16_t value) { return canonical(kConvert(value)); }>(
      warp, instruction, lanes);
}
template <auto kConvert>
void narrow_pair(Warp& warp, const Instruction& instruction, Mask lanes) {
  binary<std::uint32_t, float, [](float high, float low) {
    return std::uint32_t{kConvert(high)} << 16 | kConvert(low);
  }>(warp, instruction, lanes);
}

Execute fast(const Conversion& conversion) {
  if (conversion.rounding != Rounding::nearest || conversion.to_integer_value || conversion.saturates ||
      conversion.flushes || conversion.relu || conversion.finite)
    return nullptr;
  const Type to = conversion.to, from = conversion.from;
  if (from == Type::f32 && to == Type::f16) return narrow<to_half>;
  if (from == Type::f32 && to == Type::bf16) return narrow<to_bfloat16>;
  if (from == Type::f16 && to == Type::f32) return widen<half_to_float>;
  if (from == Type::bf16 && to == Type::f32) return widen<bfloat16_to_float>;
  return nullptr;
}

// d = {a, b}: the first source is the upper half.
void floats_to_pair(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  double high[kLanes], low[kLanes];
  read_prepared(warp, instruction, 0, high);
  read_prepared(warp, instruction, 1, low);
  const int bits = 8 * bytes_of(conversion.to);
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] = to_float_type(high[lane], conversion) << bits | to_float_type(low[lane], conversion);
  write_bits(warp, instruction, conversion.to_bytes, results, lanes);
}

// Two f16 to two of 8 bits; and back.
void halves_to_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  const std::uint32_t* from = warp.lanes(instruction.source[0]);
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] = to_float_type(half_to_float(from[lane] >> 16), conversion) << 8 |
                    to_float_type(half_to_float(from[lane] & 0xffff), conversion);
  write_bits(warp, instruction, conversion.to_bytes, results, lanes);
}

void bytes_to_halves(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  const std::uint16_t* from = warp.lanes<std::uint16_t>(instruction.source[0]);
  const Format format = conversion.from == Type::e4m3 ? kE4m3 : kE5m2;
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] = to_float_type(decode(format, from[lane] >> 8), conversion) << 16 |
                    to_float_type(decode(format, from[lane] & 0xff), conversion);
  write_bits(warp, instruction, 4, results, lanes);
}

// cvt.pack.sat: two integers of 32 bits to the low half, the third's low half above.
void pack_saturated(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  const std::int32_t *a = warp.lanes<std::int32_t>(instruction.source[0]),
                     *b = warp.lanes<std::int32_t>(instruction.source[1]);
  const std::uint32_t* c = instruction.source[2] == kNone ? nullptr : warp.lanes(instruction.source[2]);
  const int bits = 8 * bytes_of(conversion.to);
  const std::uint32_t mask = (1u << bits) - 1;
  std::uint32_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto high = static_cast<std::uint32_t>(clamped(a[lane], conversion)) & mask;
    const auto low = static_cast<std::uint32_t>(clamped(b[lane], conversion)) & mask;
    results[lane] = high << bits | low;
    if (c) results[lane] |= c[lane] << 2 * bits;
  }
  put(warp, instruction.destination, results, lanes);
}

Rounding rounding_of(const Statement& statement) {
  if (statement.has("rz") || statement.has("rzi")) return Rounding::zero;
  if (statement.has("rm") || statement.has("rmi")) return Rounding::down;
  if (statement.has("rp") || statement.has("rpi")) return Rounding::up;
  return statement.has("rna") ? Rounding::away : Rounding::nearest;
}

Type element_of(Type pair) {
  switch (pair) {
    case Type::f16x2:
      return Type::f16;
    case Type::bf16x2:
      return Type::bf16;
    case Type::e4m3x2:
      return Type::e4m3;
    case Type::e5m2x2:
      return Type::e5m2;
    default:
      return Type::none;
  }
}

bool is_bytes(Type pair) { return pair == Type::e4m3x2 || pair == Type::e5m2x2; }

// To or from two values in a register.
Execute decode_pair(Decoder& decoder, const Statement& statement, Instruction& instruction,
                    Conversion& conversion) {
  const Type to = conversion.to, from = conversion.from;
  instruction.destination = decoder.destination(statement, 0, to);
  conversion.to_bytes = static_cast<std::uint8_t>(bytes_of(to));
  instruction.source[0] = decoder.source(statement, 1, from);
  const bool plain = conversion.rounding == Rounding::nearest && !conversion.relu && !conversion.finite;
  if (from == Type::f32 && element_of(to) != Type::none) {
    instruction.source[1] = decoder.source(statement, 2, from);
    conversion.to = element_of(to);
    if (plain && to == Type::f16x2) return narrow_pair<to_half>;
    if (plain && to == Type::bf16x2) return narrow_pair<to_bfloat16>;
    return floats_to_pair;
  }
  conversion.to = element_of(to);
  conversion.from = element_of(from);
  if (is_bytes(to) && from == Type::f16x2) return halves_to_bytes;
  if (is_bytes(from) && to == Type::f16x2) return bytes_to_halves;
  return nullptr;
}

Execute decode_pack(Decoder& decoder, const Statement& statement, Instruction& instruction,
                    Conversion& conversion) {
  instruction.destination = decoder.destination(statement, 0, Type::b32);
  for (int i = 0; i < 2; ++i) instruction.source[i] = decoder.source(statement, i + 1, Type::s32);
  if (statement.operands.size() == 4) instruction.source[2] = decoder.source(statement, 3, Type::b32);
  conversion.from = Type::s32;
  const int bytes = bytes_of(conversion.to);
  return bytes == 1 || bytes == 2 ? pack_saturated : nullptr;
}

Execute decode_single(Decoder& decoder, const Statement& statement, Instruction& instruction,
                      Conversion& conversion) {
  if (statement.operands.size() != 2) refuse(statement, "another number of operands");
  const Type to = conversion.to, from = conversion.from;
  instruction.destination =
      decoder.wide_destination(statement, statement.operands[0], to, conversion.to_bytes);
  instruction.source[0] = decoder.wide_source(statement, statement.operands[1], from, conversion.from_bytes);
  const bool known_float = from == Type::f32 || from == Type::f64 || from == Type::f16 || from == Type::bf16;
  if (is_integer(from))
    return is_integer(to) ? integer_to_integer : is_float(to) ? integer_to_float : nullptr;
  if (!known_float) return nullptr;
  if (const Execute execute = fast(conversion); execute && conversion.to_bytes == bytes_of(to))
    return execute;
  return is_integer(to) ? float_to_integer : float_to_float;
}

}  // namespace

bool decode_convert(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.words[0] != "cvt") return false;
  const std::vector<Type> types = statement.types();
  auto conversion = std::make_unique<Conversion>();
  if (types.size() < 2) refuse(statement, "two types are needed");
  conversion->to = instruction.type = types[0];
  conversion->from = instruction.from = types[1];
  conversion->rounding = rounding_of(statement);
  conversion->to_integer_value =
      statement.has("rni") || statement.has("rzi") || statement.has("rmi") || statement.has("rpi");
  conversion->saturates = statement.has("sat");
  conversion->flushes = statement.has("ftz");
  conversion->relu = statement.has("relu");
  conversion->finite = statement.has("satfinite");
  if (statement.has("rs")) refuse(statement, "random rounding is Blackwell's");
  Execute execute = nullptr;
  if (statement.has("pack"))
    execute = decode_pack(decoder, statement, instruction, *conversion);
  else if (element_of(types[0]) != Type::none || element_of(types[1]) != Type::none)
    execute = decode_pair(decoder, statement, instruction, *conversion);
  else
    execute = decode_single(decoder, statement, instruction, *conversion);
  instruction.details = &decoder.keep(std::move(conversion));
  return finish(statement, instruction, execute);
}

}  // namespace cnnkernels::emulator
