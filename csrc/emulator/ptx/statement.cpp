#include "emulator/ptx/statement.h"

#include <algorithm>

#include "emulator/fault.h"

namespace cnnkernels::emulator {

bool Statement::has(std::string_view word) const {
  return !words.empty() && std::find(words.begin() + 1, words.end(), word) != words.end();
}

std::vector<Type> Statement::types() const {
  std::vector<Type> found;
  for (const std::string_view word : words)
    if (const Type type = type_named(word); type != Type::none) found.push_back(type);
  return found;
}

Type Statement::type() const {
  for (auto word = words.rbegin(); word != words.rend(); ++word)
    if (const Type type = type_named(*word); type != Type::none) return type;
  return Type::none;
}

Space Statement::space() const {
  for (const std::string_view word : words) {
    if (word == "global") return Space::global;
    if (word == "shared" || word == "shared::cta") return Space::shared;
    if (word == "shared::cluster") return Space::cluster;
    if (word == "local") return Space::local;
    if (word == "param" || word == "param::entry" || word == "param::func") return Space::param;
    if (word == "const") return Space::constant;
  }
  return Space::generic;
}

void refuse(const Statement& statement, const char* why) {
  fault("line %d: %.*s: %s", statement.line, static_cast<int>(statement.opcode.size()),
        statement.opcode.data(), why);
}

}  // namespace cnnkernels::emulator
