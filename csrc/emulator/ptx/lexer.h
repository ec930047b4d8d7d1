// PTX text as tokens.
#pragma once

#include <string_view>
#include <vector>

namespace cnnkernels::emulator {

struct Token {
  enum class Kind : unsigned char {
    word,  // also with dots and double colons: add.f32, %tid.x, .param, shared::cta
    number,
    text,      // between quotes
    mark,      // one character
    location,  // the rest of a line after .loc
    end,
  };
  std::string_view text;
  int line = 0;
  Kind kind = Kind::end;

  bool is(std::string_view other) const {
    return text == other && kind != Kind::text && kind != Kind::location;
  }
};

// The tokens point into `text`; the last is an end.
std::vector<Token> tokens_of(std::string_view text);

}  // namespace cnnkernels::emulator
