// cvt to and from two values in a register.
#include "emulator/arithmetic/conversion.h"
#include "emulator/arithmetic/halves.h"

namespace cnnkernels::emulator {

namespace {

template <auto kConvert>
void narrow_pair(Warp& warp, const Instruction& instruction, Mask lanes) {
  binary<std::uint32_t, float, [](float high, float low) {
    return std::uint32_t{kConvert(high)} << 16 | kConvert(low);
  }>(warp, instruction, lanes);
}

// d = {a, b}: the first source is the upper half.
void floats_to_pair(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  double high[kLanes], low[kLanes];
  read_floats(warp, instruction, 0, high);
  read_floats(warp, instruction, 1, low);
  const int bits = 8 * bytes_of(conversion.to);
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] = to_float_type(high[lane], conversion) << bits | to_float_type(low[lane], conversion);
  write_bits(warp, instruction, results, lanes);
}

// Two f16 to two of 8 bits; and back.
void halves_to_bytes(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  const std::uint32_t* from = warp.lanes(instruction.source[0]);
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] = to_float_type(half_to_float(from[lane] >> 16), conversion) << 8 |
                    to_float_type(half_to_float(from[lane] & 0xffff), conversion);
  write_bits(warp, instruction, results, lanes);
}

void bytes_to_halves(Warp& warp, const Instruction& instruction, Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
  const std::uint16_t* from = warp.lanes<std::uint16_t>(instruction.source[0]);
  const Format format = conversion.from == Type::e4m3 ? kE4m3 : kE5m2;
  std::uint64_t results[kLanes];
  for (int lane = 0; lane < kLanes; ++lane)
    results[lane] = to_float_type(decode(format, from[lane] >> 8), conversion) << 16 |
                    to_float_type(decode(format, from[lane] & 0xff), conversion);
  write_bits(warp, instruction, results, lanes);
}

bool is_bytes(Type pair) { return pair == Type::e4m3x2 || pair == Type::e5m2x2; }

}  // namespace

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

}  // namespace cnnkernels::emulator
