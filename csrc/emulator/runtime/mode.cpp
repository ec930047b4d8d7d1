#include "mode.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>

namespace cnnkernels::emulator::runtime {

namespace {

constexpr std::uint64_t kMostThreads = 256;

std::mutex mode_mutex;
std::optional<Mode> settings;

[[noreturn]] void refuse(const std::string& what, const std::string& words, const std::string& word) {
  throw std::invalid_argument(what + " must be " + words + ", got '" + word + "'");
}

std::string word(const char* variable, const char* otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? otherwise : text;
}

std::uint64_t number(const char* variable) {
  const std::string text = word(variable, "0");
  char* end = nullptr;
  errno = 0;
  const std::uint64_t value = std::strtoull(text.c_str(), &end, 0);
  if (*end != '\0' || text.find('-') != std::string::npos || errno != 0)
    throw std::invalid_argument(std::string(variable) + " must be a number, got '" + text + "'");
  return value;
}

Mode from_environment() {
  Mode mode;
  mode.order = order_named(word("CNNKERNELS_SCHEDULE", "ordered"), "CNNKERNELS_SCHEDULE");
  set_delivery(mode, word("CNNKERNELS_DELIVERY", "late"), "CNNKERNELS_DELIVERY");
  mode.seed = number("CNNKERNELS_SEED");
  mode.threads = static_cast<int>(std::min(number("CNNKERNELS_THREADS"), kMostThreads));
  return mode;
}

}  // namespace

Mode mode() {
  const std::lock_guard lock(mode_mutex);
  if (!settings) settings = from_environment();
  return *settings;
}

void set_mode(const Mode& mode) {
  const std::lock_guard lock(mode_mutex);
  settings = mode;
}

Order order_named(const std::string& word, const std::string& what) {
  for (const Order order : {Order::ordered, Order::reversed, Order::random})
    if (word == name(order)) return order;
  refuse(what, "ordered, reversed or random", word);
}

std::string name(Order order) {
  return order == Order::ordered ? "ordered" : order == Order::reversed ? "reversed" : "random";
}

void set_delivery(Mode& mode, const std::string& word, const std::string& what) {
  if (word != "late" && word != "random" && word != "early") refuse(what, "late, random or early", word);
  mode.late = word != "early";
  mode.unasked = word == "random";
}

std::string name_of_delivery(const Mode& mode) {
  return !mode.late ? "early" : mode.unasked ? "random" : "late";
}

}  // namespace cnnkernels::emulator::runtime
