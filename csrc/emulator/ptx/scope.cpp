#include "emulator/ptx/scope.h"

#include <charconv>

#include "emulator/fault.h"

namespace cnnkernels::emulator {

namespace {

Operand register_operand(Type type, Slot slot, std::string_view name) {
  Operand operand;
  operand.kind = type == Type::pred ? Operand::Kind::predicate : Operand::Kind::reg;
  operand.bytes = static_cast<std::uint8_t>(bytes_of(type));
  operand.slot = slot;
  operand.text = name;
  return operand;
}

// %r12 is the base %r and the number 12; -1 where no digits end the name.
std::pair<std::string_view, int> base_and_number(std::string_view name) {
  const std::size_t digits = name.find_last_not_of("0123456789") + 1;
  int number = -1;
  if (digits < name.size()) std::from_chars(name.data() + digits, name.data() + name.size(), number);
  return {name.substr(0, digits), number};
}

Slot step(Type type) { return type == Type::pred ? 1 : (bytes_of(type) + 3) / 4; }

}  // namespace

void Scopes::open() {
  scopes_.push_back({current_.empty() ? -1 : current_.back(), {}, {}, {}});
  current_.push_back(static_cast<int>(scopes_.size()) - 1);
}

void Scopes::declare(std::string_view name, Operand operand) {
  operand.text = name;
  scopes_[current()].names[name] = std::move(operand);
}

void Scopes::declare_registers(Kernel& kernel, std::string_view name, int count, Type type) {
  Slot first = kNone;
  for (int i = 0; i < (count ? count : 1); ++i) {
    const Slot slot = type == Type::pred ? kernel.predicates++ : kernel.new_register(bytes_of(type));
    if (i == 0) first = slot;
  }
  if (count)
    scopes_[current()].ranges[name] = {first, count, type};
  else
    declare(name, register_operand(type, first, name));
}

std::optional<Operand> Scopes::find(std::string_view name) const {
  const auto [base, number] = base_and_number(name);
  for (int index = current(); index >= 0; index = scopes_[index].outer) {
    const Scope& scope = scopes_[index];
    if (const auto found = scope.names.find(name); found != scope.names.end()) return found->second;
    if (number < 0) continue;
    const auto found = scope.ranges.find(base);
    if (found != scope.ranges.end() && number < found->second.count) {
      const Registers& range = found->second;
      return register_operand(range.type, range.first + number * step(range.type), name);
    }
  }
  return std::nullopt;
}

void Scopes::declare_label(std::string_view name, int instruction, int line) {
  if (!scopes_[current()].labels.emplace(name, instruction).second)
    fault("line %d: the label %s is there twice", line, std::string(name).c_str());
}

int Scopes::label(std::string_view name, int scope, int line) const {
  for (; scope >= 0; scope = scopes_[scope].outer)
    if (const auto found = scopes_[scope].labels.find(name); found != scopes_[scope].labels.end())
      return found->second;
  fault("line %d: no label %s", line, std::string(name).c_str());
}

std::string Scopes::name_of(Slot slot, bool predicate) const {
  for (const Scope& scope : scopes_) {
    for (const auto& [name, operand] : scope.names)
      if (operand.slot == slot && operand.is(predicate ? Operand::Kind::predicate : Operand::Kind::reg))
        return std::string(name);
    for (const auto& [base, range] : scope.ranges)
      if ((range.type == Type::pred) == predicate && slot >= range.first &&
          slot < range.first + range.count * step(range.type))
        return std::string(base) + std::to_string((slot - range.first) / step(range.type));
  }
  return "a register";
}

}  // namespace cnnkernels::emulator
