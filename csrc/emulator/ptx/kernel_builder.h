// From the body of an entry, and of what it calls, to a kernel.
#pragma once

#include <string_view>
#include <unordered_map>
#include <vector>

#include "emulator/ptx/cursor.h"
#include "emulator/ptx/decoder.h"
#include "emulator/ptx/program.h"
#include "emulator/ptx/scope.h"

namespace cnnkernels::emulator {

class KernelBuilder {
 public:
  KernelBuilder(const Program& program, const Function& entry);
  std::unique_ptr<Kernel> build();

 private:
  // A called function's parameters lie at fixed places of a thread's local memory: there is no recursion.
  struct Called {
    const Function* function;
    int start = -1;
    std::vector<Parameter> parameters, results;  // their offsets are those places
  };

  // kernel_builder.cpp
  void function(const Function& function, const Called* called);
  void block();
  void registers();
  void variables(Space space);
  void label();
  void statement();
  void emit(const Statement& statement, Instruction instruction);
  void location(const Token& token);
  void declare_variable(std::string_view name, Space space, std::uint64_t value, bool dynamic = false);
  void declare_shared(const Variable& variable);
  std::uint64_t new_local(const Variable& variable);

  // operand.cpp
  Operand operand();
  Operand named();
  Operand list(std::string_view end);
  Operand address();
  bool symbol(std::string_view name, Operand& operand);

  // control_flow.cpp
  bool decode_control_flow(const Statement& statement, Instruction& instruction);
  void decode_call(const Statement& statement, Instruction& instruction);
  Called& called(const Statement& statement, std::string_view name);
  void branch_targets(std::string_view name);
  void resolve();

  const Program& program_;
  std::unique_ptr<Kernel> kernel_;
  Decoder decoder_;
  Cursor cursor_;
  Scopes scopes_;
  SourcePlace place_;
  std::size_t shared_end_, dynamic_align_ = 1;
  std::unordered_map<std::string_view, std::size_t>
      module_shared_;  // static ones of the module that are named
  std::unordered_map<std::string_view, Called> called_;
  std::vector<std::string_view> calls_;  // in order: bodies to be built
  std::unordered_map<std::string_view, int> tables_;
  struct Jump {
    int instruction;
    std::string_view label;
    int scope, line;
  };
  std::vector<Jump> jumps_, table_jumps_;  // of the latter `instruction` is a table
  std::vector<std::pair<int, std::string_view>> call_sites_;
  std::vector<Decoder::Uses> uses_;  // of kernel_->code
  std::vector<int> starts_;          // where functions begin
};

// Makes a Fault of what reads a register that nothing can have written; `starts` are where functions begin.
void forbid_unassigned_reads(Kernel& kernel, const std::vector<Decoder::Uses>& uses,
                             const std::vector<int>& starts, const Scopes& scopes);
// From wgmma's accumulators on to what may be a copy of one.
void spread_accumulators(Kernel& kernel, const std::vector<Decoder::Uses>& uses);

}  // namespace cnnkernels::emulator
