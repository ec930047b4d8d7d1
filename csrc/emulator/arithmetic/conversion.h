// What the conversions share: how lanes are read as integers or doubles, rounded, and written.
#pragma once

#include <cfenv>
#include <cstdint>

#include "emulator/arithmetic/lanes.h"
#include "emulator/numbers.h"

namespace cnnkernels::emulator {

struct Conversion : Details {
  Type to = Type::none, from = Type::none;
  std::uint8_t to_bytes = 0, from_bytes = 0;  // of the registers
  Rounding rounding = Rounding::nearest;
  bool to_integer_value = false;  // .rni and the like
  bool saturates = false, flushes = false, relu = false, finite = false;
};

inline const Conversion& conversion_of(const Instruction& instruction) {
  return static_cast<const Conversion&>(*instruction.details);
}

// f16 of f16x2; none of what is no pair.
Type element_of(Type pair);

// The low bits of a register of `bytes`, as the integer type has them.
void read_integers(Warp& warp, Slot slot, int bytes, Type type, std::int64_t (&values)[kLanes]);
// Source `which` as doubles, flushed and made whole where the conversion says so.
void read_floats(Warp& warp, const Instruction& instruction, int which, double (&values)[kLanes]);
// A result narrower than its register is extended there, by its sign if it has one.
void write_integers(Warp& warp, const Instruction& instruction, const std::int64_t (&values)[kLanes],
                    Mask lanes);
void write_bits(Warp& warp, const Instruction& instruction, const std::uint64_t (&values)[kLanes],
                Mask lanes);

// The nearest that the result's type has.
std::int64_t clamped(std::int64_t value, const Conversion& conversion);
// Bits of the result's type.
std::uint64_t to_float_type(double value, const Conversion& conversion);

int host_mode(Rounding rounding);

// A function that rounds as the host is told to; it must not be one that the optimizer looks into.
template <class Function>
auto rounded(Rounding rounding, Function&& function) {
  if (rounding == Rounding::nearest) return function();
  const int before = std::fegetround();
  std::fesetround(host_mode(rounding));
  const auto result = function();
  std::fesetround(before);
  return result;
}

// With the host's rounding set.
template <class From>
__attribute__((noinline)) float to_float_now(From value) {
  return static_cast<float>(value);
}
template <class From>
__attribute__((noinline)) double to_double_now(From value) {
  return static_cast<double>(value);
}

Execute decode_pair(Decoder& decoder, const Statement& statement, Instruction& instruction,
                    Conversion& conversion);

}  // namespace cnnkernels::emulator
