// An instruction as it is written, names looked up: what the decoders of the instruction families read.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "emulator/types.h"

namespace cnnkernels::emulator {

struct Operand {
  enum class Kind : std::uint8_t {
    none,
    reg,        // slot, bytes
    predicate,  // slot, negated
    immediate,  // value; real: written as a floating-point number, value has a double's bits (`single`: a
                // float's)
    special,    // text: %tid.x
    symbol,     // a variable: space, value is its offset or address, offset was added; text is its name
    vector,     // elements, of { } or ( )
    address,    // elements[0] is the base, offset; coordinates and the like follow in elements
    label,      // text: a label, a function, a table
    sink,       // _
  };
  Kind kind = Kind::none;
  bool negated = false, real = false, single = false;
  bool dynamic = false;  // a variable in dynamic shared memory
  Space space = Space::generic;
  std::uint8_t bytes = 0;
  Slot slot = kNone;
  std::uint64_t value = 0;
  std::int64_t offset = 0;
  std::string_view text;
  std::vector<Operand> elements;
  std::vector<Operand> second;  // of `d|p`: p

  bool is(Kind other) const { return kind == other; }
};

struct Statement {
  std::string_view opcode;              // mbarrier.try_wait.parity.shared::cta.b64
  std::vector<std::string_view> words;  // mbarrier, try_wait, parity, shared::cta, b64
  std::vector<Operand> operands;
  int line = 0;

  std::string_view word(std::size_t index) const {
    return index < words.size() ? words[index] : std::string_view();
  }
  bool has(std::string_view word) const;  // any but the first
  bool starts(std::string_view prefix) const { return opcode.substr(0, prefix.size()) == prefix; }
  std::vector<Type> types() const;  // the words that are types, in order
  Type type() const;                // the last of them: none where there is none
  Space space() const;              // the first word that names one, else generic
};

// A Fault that names line and instruction.
[[noreturn]] void refuse(const Statement& statement, const char* why);

}  // namespace cnnkernels::emulator
