// A place in a list of tokens, and what is read there: words, marks, numbers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "emulator/ptx/lexer.h"

namespace cnnkernels::emulator {

// A number as it is written. `bits` are an integer's, or a double's, or (single) a float's.
struct Number {
  std::uint64_t bits = 0;
  bool real = false, single = false;
};

class Cursor {
 public:
  explicit Cursor(const std::vector<Token>& tokens, std::size_t place = 0)
      : tokens_(&tokens), place_(place) {}

  const Token& now() const { return (*tokens_)[place_]; }
  const Token& ahead(std::size_t count) const {
    return (*tokens_)[place_ + count < tokens_->size() ? place_ + count : tokens_->size() - 1];
  }
  const Token& take() {
    const Token& token = now();
    if (token.kind != Token::Kind::end) ++place_;
    return token;
  }
  bool is(std::string_view text) const { return now().is(text); }
  bool at_end() const { return now().kind == Token::Kind::end; }
  // Past it, if it stands here.
  bool accept(std::string_view text) {
    if (!is(text)) return false;
    ++place_;
    return true;
  }
  void expect(std::string_view text);
  std::string_view word();
  // A number, which may have a sign.
  bool at_number() const {
    return now().kind == Token::Kind::number || (is("-") && ahead(1).kind == Token::Kind::number);
  }
  Number number();
  std::int64_t integer();
  // Past the next one, at whatever depth of brackets.
  void skip_past(std::string_view text);
  // Past the } that belongs to the { that was just passed.
  void skip_block();
  void skip_line();

  std::size_t place() const { return place_; }
  int line() const { return now().line; }

 private:
  const std::vector<Token>* tokens_;
  std::size_t place_;
};

}  // namespace cnnkernels::emulator
