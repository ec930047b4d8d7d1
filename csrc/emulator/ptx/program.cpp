#include "emulator/ptx/program.h"

#include <algorithm>
#include <cstring>

#include "emulator/fault.h"
#include "emulator/ptx/cursor.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::size_t kMemoryAlign = 256;

// .reqntid 128, 1, 1
std::uint32_t product(Cursor& cursor) {
  std::uint32_t result = 1;
  do result *= static_cast<std::uint32_t>(cursor.integer());
  while (cursor.accept(","));
  return result;
}

void parameters(Cursor& cursor, std::vector<Variable>& list) {
  cursor.expect("(");
  while (!cursor.accept(")")) {
    if (cursor.is(".reg")) fault("line %d: parameters in registers are not known", cursor.line());
    cursor.expect(".param");
    list.push_back(variable(cursor, Space::param));
    if (!cursor.is(")")) cursor.expect(",");
  }
}

std::vector<Parameter> layout(const std::vector<Variable>& variables) {
  std::vector<Parameter> result;
  std::size_t offset = 0;
  for (const Variable& variable : variables) {
    offset = aligned(offset, variable.align);
    result.push_back({std::string(variable.name), offset, variable.bytes, variable.align});
    offset += variable.bytes;
  }
  return result;
}

}  // namespace

Program::Program(std::string_view text, std::string_view name) : text(text), name(name) {
  try {
    tokens = tokens_of(this->text);
    scan();
    place_variables();
    for (const std::string_view name : entry_names_) {
      const Function& function = functions.at(name);
      std::unique_ptr<Kernel> kernel = build_kernel(*this, function);
      kernel->entry.parameters = layout(function.parameters);
      kernel->entry.most_threads = function.most_threads;
      entries.push_back(kernel->entry);
      kernels.emplace(name, std::move(kernel));
    }
  } catch (const Fault& fault) {
    throw Fault(this->name + ": " + fault.what());
  }
}

void Program::scan() {
  Cursor cursor(tokens);
  while (!cursor.at_end()) {
    if (cursor.accept(".version") || cursor.accept(".address_size")) {
      cursor.take();
    } else if (cursor.accept(".target")) {
      target = cursor.word();
      while (cursor.accept(",")) cursor.take();
    } else if (cursor.accept(".visible") || cursor.accept(".weak") || cursor.accept(".extern") ||
               cursor.accept(".common") || cursor.accept(";")) {
      continue;
    } else if (cursor.accept(".entry")) {
      scan_function(cursor, true);
    } else if (cursor.accept(".func")) {
      scan_function(cursor, false);
    } else if (const Space space = space_of_directive(cursor.now().text); space != Space::generic) {
      cursor.take();
      scan_variables(cursor, space);
    } else if (cursor.accept(".file")) {
      const auto number = static_cast<std::size_t>(cursor.integer());
      if (number >= files.size()) files.resize(number + 1);
      files[number] = cursor.take().text;
      while (cursor.accept(",")) cursor.take();  // size and time
    } else if (cursor.accept(".section")) {
      cursor.skip_past("{");
      cursor.skip_block();
    } else if (cursor.accept(".alias") || cursor.accept(".pragma")) {
      cursor.skip_past(";");
    } else if (cursor.now().kind == Token::Kind::location) {
      cursor.take();
    } else {
      fault("line %d: '%s' is no PTX", cursor.line(), std::string(cursor.now().text).c_str());
    }
  }
}

void Program::scan_function(Cursor& cursor, bool entry) {
  Function function;
  function.entry = entry;
  function.line = cursor.line();
  while (cursor.is(".attribute") || cursor.is(".noreturn"))
    if (cursor.take().is(".attribute")) cursor.skip_past(")");
  if (!entry && cursor.is("(")) parameters(cursor, function.results);
  function.name = cursor.word();
  if (cursor.is("(")) parameters(cursor, function.parameters);
  while (!cursor.is("{") && !cursor.is(";")) {  // what else it is promised
    if (cursor.at_end()) fault("line %d: a function without an end", function.line);
    const Token& directive = cursor.take();
    if (directive.is(".reqntid") || directive.is(".maxntid")) function.most_threads = product(cursor);
  }
  if (cursor.accept("{")) {
    function.defined = true;
    function.body = cursor.place();
    cursor.skip_block();
  } else {
    cursor.take();
  }
  if (entry && function.defined) entry_names_.push_back(function.name);
  Function& known = functions[function.name];
  if (!known.defined) known = std::move(function);
}

void Program::scan_variables(Cursor& cursor, Space space) {
  do {
    Variable declared = variable(cursor, space);
    const std::string_view name = declared.name;
    variables.insert_or_assign(name, std::move(declared));
  } while (cursor.accept(","));
  cursor.expect(";");
}

void Program::place_variables() {
  std::size_t end = 0;
  for (const auto& [name, variable] : variables) {
    if (variable.space == Space::shared) continue;
    places[name] = aligned(end, std::max<std::size_t>(variable.align, 16));
    end = places[name] + variable.bytes;
  }
  memory_bytes = end;
  memory = std::make_unique<std::byte[]>(end + kMemoryAlign);
  base = reinterpret_cast<std::byte*>(aligned(reinterpret_cast<std::uintptr_t>(memory.get()), kMemoryAlign));
  for (const auto& [name, place] : places) {
    const Variable& variable = variables.at(name);
    if (!variable.initial.empty()) std::memcpy(base + place, variable.initial.data(), variable.bytes);
    for (const auto& [at, target] : variable.pointers) {
      const auto found = places.find(target);
      if (found == places.end())
        fault("line %d: the address of %s is not known", variable.line, std::string(target).c_str());
      std::uint64_t address;
      std::memcpy(&address, base + place + at, sizeof address);
      address += reinterpret_cast<std::uintptr_t>(base + found->second);
      std::memcpy(base + place + at, &address, sizeof address);
    }
  }
}

std::shared_ptr<const Program> parse(std::string_view text, std::string_view name) {
  return std::make_shared<const Program>(text, name);
}

const std::vector<Entry>& entries(const Program& program) { return program.entries; }

}  // namespace cnnkernels::emulator
