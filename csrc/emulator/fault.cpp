#include "emulator/fault.h"

#include <cstdarg>
#include <cstdio>

namespace cnnkernels::emulator {

namespace {

std::string print(const char* format, std::va_list arguments) {
  std::va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, arguments);
  std::string text(length + 1, '\0');
  std::vsnprintf(text.data(), text.size(), format, again);
  va_end(again);
  text.resize(length);
  return text;
}

}  // namespace

void fault_of_lane(int lane, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  const std::string text = print(format, arguments);
  va_end(arguments);
  throw Fault(text, lane);
}

void fault(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  const std::string text = print(format, arguments);
  va_end(arguments);
  throw Fault(text);
}

std::string formatted(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::string text = print(format, arguments);
  va_end(arguments);
  return text;
}

}  // namespace cnnkernels::emulator
