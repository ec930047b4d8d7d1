// Names: registers, variables and labels of blocks within blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "emulator/ptx/kernel.h"
#include "emulator/ptx/statement.h"

namespace cnnkernels::emulator {

class Scopes {
 public:
  // The outermost scope is there from the beginning.
  Scopes() { open(); }

  void open();
  void close() { current_.pop_back(); }
  int current() const { return current_.back(); }

  // What an operand of this name is. Registers are made by declare_registers: `count` of them, %r0 and on, or
  // one of just this name where count is 0.
  void declare(std::string_view name, Operand operand);
  void declare_registers(Kernel& kernel, std::string_view name, int count, Type type);
  std::optional<Operand> find(std::string_view name) const;

  void declare_label(std::string_view name, int instruction, int line);
  // The instruction at a label seen from a scope, or a Fault.
  int label(std::string_view name, int scope, int line) const;

  // The register or predicate in a slot, as it is written; for faults.
  std::string name_of(Slot slot, bool predicate) const;

 private:
  struct Registers {
    Slot first;
    int count;
    Type type;
  };
  struct Scope {
    int outer;
    std::unordered_map<std::string_view, Operand> names;
    std::unordered_map<std::string_view, Registers> ranges;
    std::unordered_map<std::string_view, int> labels;
  };
  std::vector<Scope> scopes_;
  std::vector<int> current_;
};

}  // namespace cnnkernels::emulator
