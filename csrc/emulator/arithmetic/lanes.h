// An operation on the lanes of registers. It is computed for all lanes, which the host's vectors do best, and
// written for those that execute it: an operation has to be harmless on whatever the others hold.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/machine/state.h"
#include "emulator/ptx/decoder.h"

namespace cnnkernels::emulator {

// kPairs: values of two bytes, two in a register; then there are 64.
template <class T, bool kPairs = false>
inline constexpr int kValues = kPairs ? 2 * kLanes : kLanes;

template <class T, int kCount>
inline void put(Warp& warp, Slot slot, const T (&values)[kCount], Mask lanes) {
  T* to = warp.lanes<T>(slot);
  if (lanes == kAllLanes) {
    std::memcpy(to, values, sizeof values);
  } else {
    constexpr int kPer = kCount / kLanes;
    for_each_lane(lanes,
                  [&](int lane) { std::memcpy(to + lane * kPer, values + lane * kPer, sizeof(T) * kPer); });
  }
}

template <class Result, class Source, auto kOperation, bool kPairs = false>
void unary(Warp& warp, const Instruction& instruction, Mask lanes) {
  constexpr int kCount = kValues<Source, kPairs>;
  const Source* a = warp.lanes<Source>(instruction.source[0]);
  Result results[kCount];
  for (int i = 0; i < kCount; ++i) results[i] = static_cast<Result>(kOperation(a[i]));
  put(warp, instruction.destination, results, lanes);
}

template <class Result, class Source, auto kOperation, bool kPairs = false>
void binary(Warp& warp, const Instruction& instruction, Mask lanes) {
  constexpr int kCount = kValues<Source, kPairs>;
  const Source *a = warp.lanes<Source>(instruction.source[0]), *b = warp.lanes<Source>(instruction.source[1]);
  Result results[kCount];
  for (int i = 0; i < kCount; ++i) results[i] = static_cast<Result>(kOperation(a[i], b[i]));
  put(warp, instruction.destination, results, lanes);
}

// The third source may have another type than the first two: it has the result's in mad.wide.
template <class Result, class Source, class Third, auto kOperation, bool kPairs = false>
void ternary(Warp& warp, const Instruction& instruction, Mask lanes) {
  constexpr int kCount = kValues<Source, kPairs>;
  const Source *a = warp.lanes<Source>(instruction.source[0]), *b = warp.lanes<Source>(instruction.source[1]);
  const Third* c = warp.lanes<Third>(instruction.source[2]);
  Result results[kCount];
  for (int i = 0; i < kCount; ++i) results[i] = static_cast<Result>(kOperation(a[i], b[i], c[i]));
  put(warp, instruction.destination, results, lanes);
}

// The instance for a type of 2, 4 or 8 bytes; null where it is none.
template <auto kOperation>
Execute unary_of(Type type) {
  switch (type) {
    case Type::u16:
    case Type::b16:
      return unary<std::uint16_t, std::uint16_t, kOperation>;
    case Type::u32:
    case Type::b32:
      return unary<std::uint32_t, std::uint32_t, kOperation>;
    case Type::u64:
    case Type::b64:
      return unary<std::uint64_t, std::uint64_t, kOperation>;
    case Type::s16:
      return unary<std::int16_t, std::int16_t, kOperation>;
    case Type::s32:
      return unary<std::int32_t, std::int32_t, kOperation>;
    case Type::s64:
      return unary<std::int64_t, std::int64_t, kOperation>;
    default:
      return nullptr;
  }
}

template <auto kOperation>
Execute binary_of(Type type) {
  switch (type) {
    case Type::u16:
    case Type::b16:
      return binary<std::uint16_t, std::uint16_t, kOperation>;
    case Type::u32:
    case Type::b32:
      return binary<std::uint32_t, std::uint32_t, kOperation>;
    case Type::u64:
    case Type::b64:
      return binary<std::uint64_t, std::uint64_t, kOperation>;
    case Type::s16:
      return binary<std::int16_t, std::int16_t, kOperation>;
    case Type::s32:
      return binary<std::int32_t, std::int32_t, kOperation>;
    case Type::s64:
      return binary<std::int64_t, std::int64_t, kOperation>;
    case Type::u16x2:
      return binary<std::uint16_t, std::uint16_t, kOperation, true>;
    case Type::s16x2:
      return binary<std::int16_t, std::int16_t, kOperation, true>;
    default:
      return nullptr;
  }
}

template <auto kOperation>
Execute ternary_of(Type type) {
  switch (type) {
    case Type::u16:
    case Type::b16:
      return ternary<std::uint16_t, std::uint16_t, std::uint16_t, kOperation>;
    case Type::u32:
    case Type::b32:
      return ternary<std::uint32_t, std::uint32_t, std::uint32_t, kOperation>;
    case Type::u64:
    case Type::b64:
      return ternary<std::uint64_t, std::uint64_t, std::uint64_t, kOperation>;
    case Type::s16:
      return ternary<std::int16_t, std::int16_t, std::int16_t, kOperation>;
    case Type::s32:
      return ternary<std::int32_t, std::int32_t, std::int32_t, kOperation>;
    case Type::s64:
      return ternary<std::int64_t, std::int64_t, std::int64_t, kOperation>;
    default:
      return nullptr;
  }
}

// A destination and `count` sources, all of one type.
inline void decode_operands(Decoder& decoder, const Statement& statement, Instruction& instruction, int count,
                            Type type) {
  if (statement.operands.size() != static_cast<std::size_t>(count) + 1)
    refuse(statement, "another number of operands");
  instruction.type = type;
  instruction.destination = decoder.destination(statement, 0, type);
  for (int i = 0; i < count; ++i) instruction.source[i] = decoder.source(statement, i + 1, type);
}

// Sets the function, which is null where the type is not one of the instruction's.
inline bool finish(const Statement& statement, Instruction& instruction, Execute execute) {
  if (!execute) refuse(statement, "this type or form is not known");
  instruction.execute = execute;
  return true;
}

}  // namespace cnnkernels::emulator
