#include "emulator/ptx/kernel_builder.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "emulator/fault.h"
#include "emulator/machine/state.h"
#include "emulator/ptx/families.h"

namespace cnnkernels::emulator {

namespace {

constexpr Decode kFamilies[] = {
    decode_integer, decode_float,   decode_move,    decode_compare,      decode_load_store,
    decode_convert, decode_bits,    decode_barrier, decode_asynchronous, decode_tensor_cores,
    decode_lanes,   decode_address, decode_atomic,  decode_dot_product,
};

// What other GPUs have and Hopper has not, and what nobody has asked for.
void refuse_foreign(const Statement& statement) {
  if (statement.starts("tcgen05") || statement.starts("clusterlaunchcontrol"))
    refuse(statement, "is Blackwell's; GPUs from sm_80 to sm_90a are known");
  for (const std::string_view word : statement.words) {
    if (word == "f32x2") refuse(statement, "is Blackwell's; GPUs from sm_80 to sm_90a are known");
    if (word == "sp" || word == "sp::ordered_metadata") refuse(statement, "sparse operands are not known");
    if (word == "b1" || word == "s4" || word == "u4" || word == "e2m1")
      refuse(statement, "types smaller than a byte are not known");
  }
}

std::vector<std::string_view> split(std::string_view opcode) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t dot = opcode.find('.');
    words.push_back(opcode.substr(0, dot));
    if (dot == std::string_view::npos) return words;
    opcode.remove_prefix(dot + 1);
  }
}

}  // namespace

KernelBuilder::KernelBuilder(const Program& program, const Function& entry)
    : program_(program),
      kernel_(std::make_unique<Kernel>()),
      decoder_(*kernel_),
      cursor_(program.tokens, entry.body),
      shared_end_(SharedMemory::kStart) {
  kernel_->program = &program;
  kernel_->entry.name = entry.name;
  calls_.push_back(entry.name);
}

std::unique_ptr<Kernel> KernelBuilder::build() {
  for (std::size_t i = 0; i < calls_.size(); ++i) {  // bodies call further ones
    const auto found = called_.find(calls_[i]);
    function(program_.functions.at(calls_[i]), found == called_.end() ? nullptr : &found->second);
  }
  resolve();
  kernel_->dynamic_shared = static_cast<std::uint32_t>(aligned(shared_end_, dynamic_align_));
  kernel_->entry.static_shared_bytes = kernel_->dynamic_shared - SharedMemory::kStart;
  kernel_->predicate_image.resize(kernel_->predicates, 0);
  forbid_unassigned_reads(*kernel_, uses_, starts_, scopes_);
  spread_accumulators(*kernel_, uses_);
  return std::move(kernel_);
}

void KernelBuilder::function(const Function& function, const Called* called) {
  const int start = static_cast<int>(kernel_->code.size());
  starts_.push_back(start);
  scopes_.open();
  if (called) {
    called_.at(function.name).start = start;
    for (const auto* list : {&called->parameters, &called->results})
      for (const Parameter& parameter : *list) {
        const auto& from = list == &called->results ? function.results : function.parameters;
        declare_variable(from[&parameter - list->data()].name, Space::local, parameter.offset);
      }
  } else {
    std::size_t offset = 0;
    for (const Variable& parameter : function.parameters) {
      offset = aligned(offset, parameter.align);
      declare_variable(parameter.name, Space::param, offset);
      offset += parameter.bytes;
    }
  }
  cursor_ = Cursor(program_.tokens, function.body);
  block();
  scopes_.close();
  Statement end;
  end.opcode = "ret";
  end.line = cursor_.line();
  Instruction instruction;
  instruction.control = Control::function_return;
  emit(end, instruction);
}

// To the } and past it.
void KernelBuilder::block() {
  while (!cursor_.accept("}")) {
    if (cursor_.at_end()) fault("line %d: a block without an end", cursor_.line());
    if (cursor_.accept(";")) continue;
    if (cursor_.accept("{")) {
      scopes_.open();
      block();
      scopes_.close();
    } else if (cursor_.now().kind == Token::Kind::location) {
      location(cursor_.take());
    } else if (cursor_.accept(".reg")) {
      registers();
    } else if (cursor_.accept(".pragma")) {
      cursor_.skip_past(";");
    } else if (const Space space = space_of_directive(cursor_.now().text); space != Space::generic) {
      cursor_.take();
      variables(space);
    } else if (cursor_.ahead(1).is(":")) {
      label();
    } else {
      statement();
    }
  }
}

void KernelBuilder::registers() {
  const std::string_view word = cursor_.word();
  const Type type = type_named(word.substr(1));
  if (type == Type::none) fault("line %d: registers of type %s", cursor_.line(), std::string(word).c_str());
  do {
    const std::string_view name = cursor_.word();
    int count = 0;
    if (cursor_.accept("<")) {
      count = static_cast<int>(cursor_.integer());
      cursor_.expect(">");
    }
    scopes_.declare_registers(*kernel_, name, count, type);
  } while (cursor_.accept(","));
  cursor_.expect(";");
}

void KernelBuilder::variables(Space space) {
  do {
    const Variable declared = variable(cursor_, space);
    if (space == Space::shared)
      declare_shared(declared);
    else if (space == Space::local || space == Space::param)
      declare_variable(declared.name, Space::local, new_local(declared));
    else
      fault("line %d: a variable of this space within a function", declared.line);
  } while (cursor_.accept(","));
  cursor_.expect(";");
}

void KernelBuilder::declare_variable(std::string_view name, Space space, std::uint64_t value, bool dynamic) {
  Operand operand;
  operand.kind = Operand::Kind::symbol;
  operand.space = space;
  operand.value = value;
  operand.dynamic = dynamic;
  scopes_.declare(name, operand);
}

void KernelBuilder::declare_shared(const Variable& variable) {
  if (variable.unsized) {
    dynamic_align_ = std::max(dynamic_align_, variable.align);
    declare_variable(variable.name, Space::shared, 0, true);
  } else {
    shared_end_ = aligned(shared_end_, variable.align);
    declare_variable(variable.name, Space::shared, shared_end_);
    shared_end_ += variable.bytes;
  }
}

std::uint64_t KernelBuilder::new_local(const Variable& variable) {
  const std::size_t place = aligned(kernel_->local_bytes, std::max<std::size_t>(variable.align, 16));
  kernel_->local_bytes = place + variable.bytes;
  return place;
}

void KernelBuilder::label() {
  const Token& name = cursor_.take();
  cursor_.expect(":");
  if (cursor_.accept(".branchtargets"))
    branch_targets(name.text);
  else if (cursor_.accept(".callprototype") || cursor_.accept(".calltargets"))
    cursor_.skip_past(";");
  else
    scopes_.declare_label(name.text, static_cast<int>(kernel_->code.size()), name.line);
}

void KernelBuilder::location(const Token& token) {
  std::sscanf(std::string(token.text).c_str(), "%d %d", &place_.file, &place_.line);
}

void KernelBuilder::statement() {
  Statement statement;
  Instruction instruction;
  statement.line = instruction.line = cursor_.line();
  if (cursor_.accept("@")) {
    Operand guard = operand();
    instruction.guard_negated = guard.negated;
    statement.opcode = "a guard";
    instruction.guard = decoder_.predicate(statement, guard);
  }
  if (cursor_.is(".")) fault("line %d: a name is needed", cursor_.line());
  statement.opcode = cursor_.word();
  statement.words = split(statement.opcode);
  while (!cursor_.accept(";")) {
    statement.operands.push_back(operand());
    if (!cursor_.is(";")) cursor_.expect(",");
  }
  if (statement.words[0].empty()) refuse(statement, "no directive that is known");
  refuse_foreign(statement);
  if (!decode_control_flow(statement, instruction)) {
    const bool known = std::any_of(std::begin(kFamilies), std::end(kFamilies),
                                   [&](Decode decode) { return decode(decoder_, statement, instruction); });
    if (!known) refuse(statement, "is not known");
  }
  emit(statement, instruction);
}

void KernelBuilder::emit(const Statement& statement, Instruction instruction) {
  instruction.line = statement.line;
  kernel_->code.push_back(instruction);
  kernel_->opcodes.push_back(statement.opcode);
  kernel_->places.push_back(place_);
  uses_.push_back(decoder_.take_uses());
}

std::unique_ptr<Kernel> build_kernel(const Program& program, const Function& entry) {
  return KernelBuilder(program, entry).build();
}

}  // namespace cnnkernels::emulator
