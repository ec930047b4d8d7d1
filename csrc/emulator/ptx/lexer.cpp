#include "emulator/ptx/lexer.h"

#include <array>

#include "emulator/fault.h"

namespace cnnkernels::emulator {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

constexpr std::array<bool, 256> word_characters() {
  std::array<bool, 256> table{};
  for (const char* range : {"az", "AZ", "09"})
    for (int c = range[0]; c <= range[1]; ++c) table[c] = true;
  for (const char c : {'_', '$', '%', '.'}) table[static_cast<unsigned char>(c)] = true;
  return table;
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { tokens_.reserve(text.size() / 5); }

  std::vector<Token> run() {
    while (skip_space()) token();
    add(Token::Kind::end, text_.size());
    return std::move(tokens_);
  }

 private:
  char at(std::size_t place) const { return place < text_.size() ? text_[place] : '\0'; }

  // Past blanks and comments; false at the end of the text.
  bool skip_space() {
    while (place_ < text_.size()) {
      const char c = text_[place_];
      if (c == '\n') {
        ++line_;
        ++place_;
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++place_;
      } else if (c == '/' && at(place_ + 1) == '/') {
        place_ = end_of_line();
      } else if (c == '/' && at(place_ + 1) == '*') {
        const std::size_t end = text_.find("*/", place_ + 2);
        if (end == std::string_view::npos) fault("line %d: a comment without an end", line_);
        for (; place_ < end + 2; ++place_) line_ += text_[place_] == '\n';
      } else {
        return true;
      }
    }
    return false;
  }

  void token() {
    static constexpr std::array<bool, 256> kWord = word_characters();
    const char c = text_[place_];
    if (c == '"') {
      const std::size_t end = text_.find('"', place_ + 1);
      if (end == std::string_view::npos) fault("line %d: a text without an end", line_);
      ++place_;
      add(Token::Kind::text, end);
      ++place_;
    } else if (is_digit(c)) {
      add(Token::Kind::number, end_of_number());
    } else if (kWord[static_cast<unsigned char>(c)]) {
      std::size_t end = place_;
      for (;;) {
        if (kWord[static_cast<unsigned char>(at(end))]) {
          ++end;
        } else if (at(end) == ':' && at(end + 1) == ':' &&
                   (is_letter(at(end + 2)) || is_digit(at(end + 2)))) {
          end += 2;
        } else {
          break;
        }
      }
      if (text_.substr(place_, end - place_) == ".loc") {
        place_ = end;
        add(Token::Kind::location, end_of_line());
      } else {
        add(Token::Kind::word, end);
      }
    } else {
      add(Token::Kind::mark, place_ + 1);
    }
  }

  std::size_t end_of_line() const {
    const std::size_t end = text_.find('\n', place_);
    return end == std::string_view::npos ? text_.size() : end;
  }

  // 12, 0x1F, 0f3F800000, 1.5, 1e-5, 12U.
  std::size_t end_of_number() const {
    const bool prefixed = at(place_) == '0' && is_letter(at(place_ + 1));
    std::size_t end = place_;
    for (;; ++end) {
      const char c = at(end);
      const bool exponent_sign =
          !prefixed && (c == '+' || c == '-') && (at(end - 1) == 'e' || at(end - 1) == 'E');
      if (!is_digit(c) && !is_letter(c) && c != '.' && !exponent_sign) return end;
    }
  }

  void add(Token::Kind kind, std::size_t end) {
    tokens_.push_back({text_.substr(place_, end - place_), line_, kind});
    place_ = end;
  }

  std::string_view text_;
  std::size_t place_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokens_of(std::string_view text) { return Lexer(text).run(); }

}  // namespace cnnkernels::emulator
