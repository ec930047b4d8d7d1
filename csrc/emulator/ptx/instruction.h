// A decoded instruction: a function, and where its operands live.
#pragma once

#include <cstdint>

#include "emulator/types.h"

namespace cnnkernels::emulator {

struct Warp;
struct Instruction;

// Executes an instruction for the lanes whose guard is true, never none. It may be called again where it
// waits.
using Execute = void (*)(Warp& warp, const Instruction& instruction, Mask lanes);

// What the scheduler has to know of an instruction.
enum class Control : std::uint8_t {
  plain,    // execute, go on
  waits,    // execute, then look at Warp::outcome
  members,  // waits until all live lanes of its member mask are here, then as `waits`
  warp,     // waits until all live lanes of the warp are here, then as `waits`
  branch,
  indexed_branch,
  call,
  function_return,
  exit,
};

// What only one family of instructions needs; it derives its own. Kept by the kernel.
struct Details {
  virtual ~Details() = default;
};

inline constexpr int kMostSources = 5;

struct Instruction {
  Execute execute = nullptr;
  Execute measure = nullptr;  // tells the cluster's meter what it is about to move or multiply; none: nothing
  const Details* details = nullptr;
  std::int64_t immediate = 0;
  std::int64_t offset = 0;   // added to the address in source[0]
  std::int32_t line = 0;     // of the PTX
  std::int32_t target = -1;  // of a branch or a call: an instruction; of an indexed branch: a table
  Slot guard = kNone;        // a predicate
  Slot destination = kNone, second = kNone;
  Slot source[kMostSources] = {kNone, kNone, kNone, kNone, kNone};
  Slot members = kNone;        // of Control::members: the mask, 4 bytes
  const Slot* list = nullptr;  // a vector operand's slots
  std::uint8_t list_size = 0;
  std::uint8_t negated = 0;  // bit i: source[i] is a predicate to be negated
  bool guard_negated = false;
  Control control = Control::plain;
  Type type = Type::none;  // of the result
  Type from = Type::none;  // of the sources, where it is another
  Space space = Space::generic;
  std::uint8_t register_bytes = 0;  // of ld, st and cvt: the registers', which may be wider than the type
  std::uint8_t address_bytes = 8;   // of the register with the address: 4 or 8
  std::uint32_t flags = 0;          // the family's own
};

}  // namespace cnnkernels::emulator
