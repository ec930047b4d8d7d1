// Operands as they are written: registers, numbers, names of variables, vectors, addresses.
#include <algorithm>
#include <array>
#include <string>

#include "emulator/fault.h"
#include "emulator/ptx/kernel_builder.h"

namespace cnnkernels::emulator {

namespace {

using Kind = Operand::Kind;

constexpr std::array kSpecialRegisters{
    "%tid",
    "%ntid",
    "%ctaid",
    "%nctaid",
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%smid",
    "%nsmid",
    "%gridid",
    "%clock",
    "%clock64",
    "%clock_hi",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%clusterid",
    "%nclusterid",
    "%cluster_ctaid",
    "%cluster_nctaid",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%is_explicit_cluster",
    "%dynamic_smem_size",
    "%total_smem_size",
    "%aggr_smem_size",
};

bool is_special(std::string_view name) {
  const std::string_view base = name.substr(0, name.find('.'));
  for (const char* special : kSpecialRegisters)
    if (base == special) return true;
  return false;
}

Operand operand_of(Kind kind, std::string_view text) {
  Operand operand;
  operand.kind = kind;
  operand.text = text;
  return operand;
}

}  // namespace

Operand KernelBuilder::operand() {
  if (cursor_.accept("!")) {
    Operand negated = operand();
    negated.negated = !negated.negated;
    return negated;
  }
  if (cursor_.accept("{")) return list("}");
  if (cursor_.accept("(")) return list(")");
  if (cursor_.accept("[")) return address();
  if (cursor_.at_number()) {
    Operand constant = operand_of(Kind::immediate, cursor_.now().text);
    const Number number = cursor_.number();
    constant.value = number.bits;
    constant.real = number.real;
    constant.single = number.single;
    return constant;
  }
  Operand first = named();
  if (cursor_.accept("|")) first.second.push_back(operand());
  return first;
}

Operand KernelBuilder::list(std::string_view end) {
  Operand vector = operand_of(Kind::vector, {});
  while (!cursor_.accept(end)) {
    vector.elements.push_back(operand());
    if (!cursor_.is(end)) cursor_.expect(",");
  }
  return vector;
}

// [base], [base + 16], [map, {x, y}].
Operand KernelBuilder::address() {
  Operand address = operand_of(Kind::address, {});
  address.elements.push_back(operand());
  if (cursor_.accept("+"))
    address.offset = cursor_.integer();
  else if (cursor_.is("-"))
    address.offset = cursor_.integer();
  while (cursor_.accept(",")) address.elements.push_back(operand());
  cursor_.expect("]");
  address.space = address.elements[0].is(Kind::symbol) ? address.elements[0].space : Space::generic;
  return address;
}

Operand KernelBuilder::named() {
  const std::string_view name = cursor_.word();
  if (name == "_") return operand_of(Kind::sink, name);
  if (const auto found = scopes_.find(name)) return *found;
  Operand operand;
  if (symbol(name, operand)) return operand;
  if (is_special(name)) return operand_of(Kind::special, name);
  if (name == "WARP_SZ") {
    operand = operand_of(Kind::immediate, name);
    operand.value = kLanes;
    return operand;
  }
  if (name[0] == '%' && !cursor_.is("("))
    fault("line %d: there is no register %s", cursor_.line(), std::string(name).c_str());
  return operand_of(Kind::label, name);
}

// A variable of the module. A shared one becomes the kernel's when it is named for the first time.
bool KernelBuilder::symbol(std::string_view name, Operand& operand) {
  const auto variable = program_.variables.find(name);
  if (variable == program_.variables.end()) return false;
  operand = operand_of(Kind::symbol, name);
  operand.space = variable->second.space;
  if (operand.space == Space::shared) {
    const Variable& shared = variable->second;
    if (shared.unsized) {
      dynamic_align_ = std::max(dynamic_align_, shared.align);
      operand.dynamic = true;
      return true;
    }
    const auto [place, is_new] = module_shared_.try_emplace(name, aligned(shared_end_, shared.align));
    if (is_new) shared_end_ = place->second + shared.bytes;
    operand.value = place->second;
    return true;
  }
  operand.value = reinterpret_cast<std::uintptr_t>(program_.base + program_.places.at(name));
  return true;
}

}  // namespace cnnkernels::emulator
