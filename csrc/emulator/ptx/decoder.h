// What a family's decoder is handed: it turns operands into slots of the kernel being decoded.
//
// A family is a function `bool decode_x(Decoder&, const Statement&, Instruction&)`: false where the
// instruction is not its own, a Fault (refuse) where it is but is not known in this form. The list of them is
// in families.cpp.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "emulator/ptx/instruction.h"
#include "emulator/ptx/kernel.h"
#include "emulator/ptx/statement.h"

namespace cnnkernels::emulator {

class Decoder {
 public:
  explicit Decoder(Kernel& kernel);

  // A register of the type's size; or a constant, special register or variable's address, which get a slot
  // with the value in all lanes. `_` is not a source.
  Slot source(const Statement& statement, std::size_t index, Type type);
  Slot source(const Statement& statement, const Operand& operand, Type type);
  // ld, st and cvt take registers wider than the type: `bytes` is the register's, or the type's for a
  // constant.
  Slot wide_source(const Statement& statement, const Operand& operand, Type type, std::uint8_t& bytes);
  // A register that is written; `_` gives a slot that nobody reads.
  Slot destination(const Statement& statement, std::size_t index, Type type);
  Slot destination(const Statement& statement, const Operand& operand, Type type);
  Slot wide_destination(const Statement& statement, const Operand& operand, Type type, std::uint8_t& bytes);
  // Read and written by one instruction: an accumulator. It may be read before it was written.
  Slot accumulator(const Statement& statement, const Operand& operand, Type type);
  // Predicates: a slot of Warp::predicates. A constant 0 or 1 has one, too.
  Slot predicate(const Statement& statement, const Operand& operand);
  Slot predicate_destination(const Statement& statement, const Operand& operand);
  // A constant of the program's own: a slot with the value in all lanes.
  Slot constant(std::uint64_t value, Type type);

  // [base + offset]: slot and width of the base into source[which], the offset into `offset`. Only the first
  // of an instruction's addresses may use Instruction::address_bytes; of another the base becomes 8 bytes or
  // `bytes` says.
  void address(const Statement& statement, std::size_t index, Instruction& instruction);
  struct Base {
    Slot slot;
    std::uint8_t bytes;
    std::int64_t offset;
  };
  Base address(const Statement& statement, const Operand& operand);

  // A number that has to be written as one.
  std::int64_t number(const Statement& statement, std::size_t index);
  std::int64_t number(const Statement& statement, const Operand& operand);

  // Slots of a vector operand, or of a single one as a vector of one; kept as long as the kernel.
  std::span<const Slot> keep(std::vector<Slot> slots);
  template <class T>
  T& keep(std::unique_ptr<T> details) {
    T& kept = *details;
    kernel_.details.push_back(std::move(details));
    return kept;
  }

  Kernel& kernel() { return kernel_; }

  // What the instruction being decoded reads and writes, for the look at registers that are never written.
  struct Uses {
    std::vector<Slot> reads, writes;
  };
  Uses take_uses() { return std::exchange(uses_, {}); }

 private:
  struct Key {
    std::uint64_t value;
    std::uint8_t bytes;
    std::uint8_t kind;
    std::string_view name;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const;
  };
  Slot constant_of(const Statement& statement, const Operand& operand, Type type);
  std::uint64_t immediate_bits(const Statement& statement, const Operand& operand, Type type);

  Kernel& kernel_;
  std::unordered_map<Key, Slot, Hash> constants_;
  Slot sink_ = kNone, predicate_sink_ = kNone;
  Slot constant_predicates_[2] = {kNone, kNone};
  Uses uses_;
};

}  // namespace cnnkernels::emulator
