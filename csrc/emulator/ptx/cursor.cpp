#include "emulator/ptx/cursor.h"

#include <bit>
#include <cstdlib>
#include <string>

#include "emulator/fault.h"

namespace cnnkernels::emulator {

namespace {

constexpr int width(std::string_view text) { return static_cast<int>(text.size()); }

Number parse(const Token& token) {
  const std::string text(token.text);  // with a zero at its end
  const char kind = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : ' ';
  if (kind == 'f' && text.size() == 10) return {std::strtoull(&text[2], nullptr, 16), true, true};
  if (kind == 'd' && text.size() == 18) return {std::strtoull(&text[2], nullptr, 16), true, false};
  if (kind == 'b') return {std::strtoull(&text[2], nullptr, 2)};
  if (kind != 'x' && text.find_first_of(".eE") != std::string::npos)
    return {std::bit_cast<std::uint64_t>(std::strtod(text.c_str(), nullptr)), true, false};
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text.c_str(), &end, 0);
  if (*end != '\0' && *end != 'U' && *end != 'u')
    fault("line %d: '%s' is no number", token.line, text.c_str());
  return {value};
}

}  // namespace

void Cursor::expect(std::string_view text) {
  if (!accept(text))
    fault("line %d: '%.*s' instead of '%.*s'", line(), width(now().text), now().text.data(), width(text),
          text.data());
}

std::string_view Cursor::word() {
  if (now().kind != Token::Kind::word)
    fault("line %d: '%.*s' instead of a name", line(), width(now().text), now().text.data());
  return take().text;
}

Number Cursor::number() {
  const bool negative = accept("-");
  if (now().kind != Token::Kind::number)
    fault("line %d: '%.*s' instead of a number", line(), width(now().text), now().text.data());
  Number number = parse(take());
  if (!negative) return number;
  if (number.real)
    number.bits ^= number.single ? std::uint64_t{1} << 31 : std::uint64_t{1} << 63;
  else
    number.bits = 0 - number.bits;
  return number;
}

std::int64_t Cursor::integer() {
  const int at = line();
  const Number read = number();
  if (read.real) fault("line %d: an integer is needed", at);
  return static_cast<std::int64_t>(read.bits);
}

void Cursor::skip_past(std::string_view text) {
  while (!at_end() && !is(text)) take();
  expect(text);
}

void Cursor::skip_block() {
  for (int depth = 1; depth > 0;) {
    if (at_end()) fault("line %d: a block without an end", line());
    const Token& token = take();
    if (token.is("{")) ++depth;
    if (token.is("}")) --depth;
  }
}

void Cursor::skip_line() {
  for (const int at = line(); line() == at && !at_end();) take();
}

}  // namespace cnnkernels::emulator
