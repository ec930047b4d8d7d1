// cvt: the lanes are read as integers or doubles, changed, and written as the result's type.
#include <algorithm>
#include <cmath>
#include <limits>

#include "emulator/arithmetic/conversion.h"
#include "emulator/arithmetic/halves.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

bool is_integer(Type type) { return type >= Type::b8 && type <= Type::s64 && type != Type::u16x2; }

void integer_to_integer(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  std::int64_t values[kLanes];
  read_integers(warp, instruction.source[0], conversion.from_bytes, conversion.from, values);
  if (conversion.saturates)
    for (std::int64_t& value : values) value = clamped(value, conversion);
  write_integers(warp, instruction, values, lanes);
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
    return write_bits(warp, instruction, results, lanes);
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
  write_bits(warp, instruction, results, lanes);
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

void float_to_integer(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  double values[kLanes];
  read_floats(warp, instruction, 0, values);
  std::int64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = to_integer(values[lane], conversion.to);
  write_integers(warp, instruction, results, lanes);
}

void float_to_float(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  double values[kLanes];
  read_floats(warp, instruction, 0, values);
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = to_float_type(values[lane], conversion);
  write_bits(warp, instruction, results, lanes);
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

Rounding rounding_of(const Statement& statement) {
  if (statement.has("rz") || statement.has("rzi")) return Rounding::zero;
  if (statement.has("rm") || statement.has("rmi")) return Rounding::down;
  if (statement.has("rp") || statement.has("rpi")) return Rounding::up;
  return statement.has("rna") ? Rounding::away : Rounding::nearest;
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
