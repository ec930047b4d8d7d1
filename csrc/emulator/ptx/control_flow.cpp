// Branches, calls and ends, which the scheduler itself executes.
#include <string>

#include "emulator/fault.h"
#include "emulator/machine/call.h"
#include "emulator/ptx/kernel_builder.h"

namespace cnnkernels::emulator {

namespace {

using Kind = Operand::Kind;

void check_operands(const Statement& statement, std::size_t count) {
  if (statement.operands.size() != count) refuse(statement, "another number of operands");
}

}  // namespace

bool KernelBuilder::decode_control_flow(const Statement& statement, Instruction& instruction) {
  const std::string_view word = statement.words[0];
  const int next = static_cast<int>(kernel_->code.size());
  if (word == "bra") {
    check_operands(statement, 1);
    instruction.control = Control::branch;
    jumps_.push_back({next, statement.operands[0].text, scopes_.current(), statement.line});
  } else if (word == "brx") {
    check_operands(statement, 2);
    instruction.control = Control::indexed_branch;
    instruction.source[0] = decoder_.source(statement, 0, Type::u32);
    const auto table = tables_.find(statement.operands[1].text);
    if (table == tables_.end()) refuse(statement, "its .branchtargets are not known");
    instruction.target = table->second;
  } else if (word == "ret") {
    instruction.control = Control::function_return;
  } else if (word == "exit") {
    instruction.control = Control::exit;
  } else if (word == "call") {
    decode_call(statement, instruction);
  } else if (word == "trap" || word == "brkpt") {
    instruction.execute = [](Warp&, const Instruction&, Mask lanes) {
      fault_of_lane(__builtin_ctz(lanes), "trap");
    };
  } else {
    return false;
  }
  return true;
}

// label: .branchtargets a, b, c;
void KernelBuilder::branch_targets(std::string_view name) {
  const int table = static_cast<int>(kernel_->tables.size());
  kernel_->tables.emplace_back();
  tables_[name] = table;
  do {
    const int line = cursor_.line();
    table_jumps_.push_back({table, cursor_.word(), scopes_.current(), line});
  } while (cursor_.accept(","));
  cursor_.expect(";");
}

KernelBuilder::Called& KernelBuilder::called(const Statement& statement, std::string_view name) {
  const auto [found, is_new] = called_.try_emplace(name);
  Called& called = found->second;
  if (!is_new) return called;
  const auto function = program_.functions.find(name);
  if (function == program_.functions.end())
    refuse(statement, "a call through a pointer, or of what is not declared");
  called.function = &function->second;
  const auto place = [&](const std::vector<Variable>& variables, std::vector<Parameter>& places) {
    for (const Variable& variable : variables)
      places.push_back({std::string(variable.name), new_local(variable), variable.bytes, variable.align});
  };
  place(called.function->parameters, called.parameters);
  place(called.function->results, called.results);
  if (called.function->defined) calls_.push_back(name);
  return called;
}

// call.uni (result), name, (argument, ...);
void KernelBuilder::decode_call(const Statement& statement, Instruction& instruction) {
  const auto& operands = statement.operands;
  const bool returns = !operands.empty() && operands[0].is(Kind::vector);
  const std::size_t at = returns;
  if (at >= operands.size() || !operands[at].is(Kind::label))
    refuse(statement, "a call through a pointer is not known");
  Called& callee = called(statement, operands[at].text);

  auto call = std::make_unique<Call>();
  const auto copies = [&](const Operand& list, const std::vector<Parameter>& places, bool to_callee) {
    std::vector<Call::Copy> result;
    if (list.elements.size() != places.size()) refuse(statement, "another number of arguments than declared");
    for (std::size_t i = 0; i < places.size(); ++i) {
      const Operand& argument = list.elements[i];
      if (!argument.is(Kind::symbol) || argument.space != Space::local)
        refuse(statement, "arguments have to be .param variables");
      const std::size_t here = argument.value, there = places[i].offset;
      result.push_back(to_callee ? Call::Copy{here, there, places[i].bytes}
                                 : Call::Copy{there, here, places[i].bytes});
    }
    return result;
  };
  if (returns) call->results = copies(operands[0], callee.results, false);
  if (at + 1 < operands.size() && operands[at + 1].is(Kind::vector))
    call->arguments = copies(operands[at + 1], callee.parameters, true);

  const std::string_view name = operands[at].text;
  instruction.details = call.get();
  if (callee.function->defined) {
    instruction.control = Control::call;
    call_sites_.push_back({static_cast<int>(kernel_->code.size()), name});
  } else if (name == "__assertfail") {
    instruction.execute = fail_assertion;
  } else {
    refuse(statement, "a function that the module does not define");
  }
  decoder_.keep(std::move(call));
}

void KernelBuilder::resolve() {
  for (const Jump& jump : jumps_)
    kernel_->code[jump.instruction].target = scopes_.label(jump.label, jump.scope, jump.line);
  for (const Jump& jump : table_jumps_)
    kernel_->tables[jump.instruction].push_back(scopes_.label(jump.label, jump.scope, jump.line));
  for (const auto& [instruction, name] : call_sites_)
    kernel_->code[instruction].target = called_.at(name).start;
}

}  // namespace cnnkernels::emulator
