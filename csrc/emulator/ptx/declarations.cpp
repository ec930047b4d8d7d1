#include "emulator/ptx/declarations.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "emulator/fault.h"

namespace cnnkernels::emulator {

namespace {

class Initializer {
 public:
  Initializer(Cursor& cursor, Variable& variable)
      : cursor_(cursor), variable_(variable), element_(bytes_of(variable.type)) {
    variable.initial.resize(variable.bytes);
  }

  void value() {
    if (cursor_.accept("{")) {
      while (!cursor_.accept("}")) {
        value();
        cursor_.accept(",");
      }
    } else if (cursor_.at_number()) {
      put(bits(cursor_.number()));
    } else {
      address();
    }
  }

 private:
  std::uint64_t bits(const Number& number) const {
    if (!number.real || number.single || element_ == 8) return number.bits;
    return std::bit_cast<std::uint32_t>(static_cast<float>(std::bit_cast<double>(number.bits)));
  }

  void address() {
    const bool generic = cursor_.accept("generic");
    if (generic) cursor_.expect("(");
    const std::string_view name = cursor_.word();
    const std::int64_t offset = cursor_.accept("+") ? cursor_.integer() : 0;
    if (generic) cursor_.expect(")");
    if (element_ != 8) fault("line %d: an address as an initial value of %d bytes", cursor_.line(), element_);
    variable_.pointers.push_back({place_, name});
    put(static_cast<std::uint64_t>(offset));
  }

  void put(std::uint64_t bits) {
    if (place_ + element_ > variable_.initial.size())
      fault("line %d: more initial values than %zu bytes", cursor_.line(), variable_.bytes);
    std::memcpy(&variable_.initial[place_], &bits, element_);
    place_ += element_;
  }

  Cursor& cursor_;
  Variable& variable_;
  int element_;
  std::size_t place_ = 0;
};

}  // namespace

Space space_of_directive(std::string_view word) {
  if (word == ".shared") return Space::shared;
  if (word == ".global") return Space::global;
  if (word == ".const") return Space::constant;
  if (word == ".local") return Space::local;
  if (word == ".param") return Space::param;
  return Space::generic;
}

Variable variable(Cursor& cursor, Space space) {
  Variable result;
  result.space = space;
  result.line = cursor.line();
  std::size_t elements = 1;
  while (!cursor.at_end() && cursor.now().text.substr(0, 1) == ".") {
    const std::string_view word = cursor.word().substr(1);
    if (word == "align")
      result.align = static_cast<std::size_t>(cursor.integer());
    else if (word == "v2" || word == "v4")
      elements = word[1] - '0';
    else if (word == "attribute")
      cursor.skip_past(")");
    else if (const Type type = type_named(word); type != Type::none)
      result.type = type;
    else if (word != "ptr" && space_of_directive(std::string(".").append(word)) == Space::generic)
      fault("line %d: .%s in a declaration", cursor.line(), std::string(word).c_str());
  }
  result.name = cursor.word();
  while (cursor.accept("[")) {
    if (cursor.is("]"))
      result.unsized = true;
    else
      elements *= static_cast<std::size_t>(cursor.integer());
    cursor.expect("]");
  }
  result.align = std::max<std::size_t>(result.align, bytes_of(result.type));
  result.bytes = result.unsized ? 0 : elements * bytes_of(result.type);
  if (result.type == Type::none || !std::has_single_bit(result.align))
    fault("line %d: %s has no type or no proper alignment", result.line, std::string(result.name).c_str());
  if (cursor.accept("=")) Initializer(cursor, result).value();
  return result;
}

}  // namespace cnnkernels::emulator
