// PTX's types and state spaces, and the words that the rest of the emulator counts in.
#pragma once

#include <cstdint>
#include <string_view>

namespace cnnkernels::emulator {

enum class Type : std::uint8_t {
  none,
  pred,
  b8,
  b16,
  b32,
  b64,
  b128,
  u8,
  u16,
  u32,
  u64,
  u16x2,
  s8,
  s16,
  s32,
  s64,
  s16x2,
  f16,
  f16x2,
  bf16,
  bf16x2,
  f32,
  f64,
  tf32,
  e4m3,
  e5m2,
  e4m3x2,
  e5m2x2,
};

int bytes_of(Type type);  // of a value in memory or in a register; 0 of pred and none
const char* name_of(Type type);
Type type_named(std::string_view word);  // "f16x2", without a dot; none where it is no type
bool is_signed(Type type);               // s8 to s64 and s16x2
bool is_float(Type type);                // f16 to f64, halves in pairs, and the types of tensor cores

enum class Space : std::uint8_t { generic, global, shared, cluster, local, param, constant };

// A set of a warp's lanes, bit l for lane l.
using Mask = std::uint32_t;
inline constexpr int kLanes = 32;
inline constexpr Mask kAllLanes = ~Mask{0};

// Where a register lives: a register of 32 lanes of 4 bytes takes one slot, of 8 bytes two, of 16 four (the
// low halves of all lanes, then the high ones); one of 1 or 2 bytes takes one and leaves the rest. Predicates
// are a Mask each and are counted apart.
using Slot = std::int32_t;
inline constexpr Slot kNone = -1;
inline constexpr int kSlotBytes = 4 * kLanes;

template <class Function>
inline void for_each_lane(Mask lanes, Function&& function) {
  for (; lanes; lanes &= lanes - 1) function(__builtin_ctz(lanes));
}

}  // namespace cnnkernels::emulator
