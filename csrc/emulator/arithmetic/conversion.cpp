#include "emulator/arithmetic/conversion.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "emulator/arithmetic/halves.h"

namespace cnnkernels::emulator {

namespace {

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

void read_stored(Warp& warp, Slot slot, Type type, double (&values)[kLanes]) {
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

}  // namespace

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

void read_integers(Warp& warp, Slot slot, int bytes, Type type, std::int64_t (&values)[kLanes]) {
  with_register(bytes, [&](auto word) { read_integers(warp.lanes<decltype(word)>(slot), type, values); });
}

void read_floats(Warp& warp, const Instruction& instruction, int which, double (&values)[kLanes]) {
  const Conversion& conversion = conversion_of(instruction);
  read_stored(warp, instruction.source[which], conversion.from, values);
  if (conversion.flushes && conversion.from == Type::f32)
    for (double& value : values) value = flushed(static_cast<float>(value));
  if (conversion.to_integer_value)
    for (double& value : values) value = to_integer_value(value, conversion.rounding);
}

void write_integers(Warp& warp, const Instruction& instruction, const std::int64_t (&values)[kLanes],
                    Mask lanes) {
  const Conversion& conversion = conversion_of(instruction);
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

void write_bits(Warp& warp, const Instruction& instruction, const std::uint64_t (&values)[kLanes],
                Mask lanes) {
  with_register(conversion_of(instruction).to_bytes, [&](auto word) {
    decltype(word) results[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) results[lane] = static_cast<decltype(word)>(values[lane]);
    put(warp, instruction.destination, results, lanes);
  });
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

}  // namespace cnnkernels::emulator
