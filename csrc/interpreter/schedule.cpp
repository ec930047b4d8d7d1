#include "schedule.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

namespace cnnkernels::interpreter {
namespace {

constexpr const char* kOrders[] = {"ordered", "reversed", "random"};
constexpr const char* kDeliveries[] = {"early", "late", "random"};

template <class Choice, std::size_t N>
Choice choice(const std::string& value, const char* const (&names)[N], const char* what) {
  std::string list;
  for (std::size_t i = 0; i < N; ++i) {
    if (value == names[i]) return static_cast<Choice>(i);
    list += (i == 0 ? "" : i + 1 == N ? " or " : ", ") + std::string(names[i]);
  }
  throw std::invalid_argument(std::string(what) + " must be " + list + ", got '" + value + "'");
}

// More would not fit in a process's limit of memory mappings (65530 on Linux) with 1024 guarded stacks each.
constexpr unsigned kMostOsThreads = 16;

unsigned default_os_threads() { return std::clamp(std::thread::hardware_concurrency(), 1u, kMostOsThreads); }

std::uint64_t number(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return otherwise;
  char* end = nullptr;
  errno = 0;
  const std::uint64_t value = std::strtoull(text, &end, 0);
  if (*end != '\0' || std::strchr(text, '-') != nullptr || errno != 0) {
    throw std::invalid_argument(std::string(variable) + " must be a number, got '" + text + "'");
  }
  return value;
}

Schedule from_environment() {
  const auto text = [](const char* variable, const char* otherwise) {
    const char* value = std::getenv(variable);
    return std::string(value == nullptr || *value == '\0' ? otherwise : value);
  };
  Schedule s;
  s.order = choice<Order>(text("CNNKERNELS_SCHEDULE", "ordered"), kOrders, "CNNKERNELS_SCHEDULE");
  s.delivery = choice<Delivery>(text("CNNKERNELS_DELIVERY", "late"), kDeliveries, "CNNKERNELS_DELIVERY");
  s.seed = number("CNNKERNELS_SEED", 0);
  const std::uint64_t os_threads = number("CNNKERNELS_THREADS", 0);
  s.os_threads = os_threads == 0 ? default_os_threads()
                                 : static_cast<unsigned>(std::min<std::uint64_t>(os_threads, 256));
  return s;
}

std::mutex schedule_mutex;
std::optional<Schedule> settings;
// Of the machine, not of the environment: the two hold whatever its variables say.
std::size_t most_shared_bytes = kMostSharedBytes;

Schedule& locked_settings() {
  if (!settings) settings = from_environment();
  return *settings;
}

}  // namespace

Schedule schedule() {
  const std::lock_guard lock(schedule_mutex);
  Schedule now = locked_settings();
  now.most_shared_bytes = most_shared_bytes;
  return now;
}

void set_schedule(const std::string& order, std::int64_t seed, const std::string& delivery) {
  const std::lock_guard lock(schedule_mutex);
  Schedule next = locked_settings();
  if (!order.empty()) next.order = choice<Order>(order, kOrders, "order");
  if (!delivery.empty()) next.delivery = choice<Delivery>(delivery, kDeliveries, "delivery");
  if (seed >= 0) next.seed = static_cast<std::uint64_t>(seed);
  settings = next;
}

void set_os_threads(unsigned count) {
  const std::lock_guard lock(schedule_mutex);
  locked_settings().os_threads = count == 0 ? default_os_threads() : count;
}

void set_most_shared_bytes(std::size_t bytes) {
  const std::lock_guard lock(schedule_mutex);
  most_shared_bytes = std::min(bytes, kMostSharedBytes);
}

std::string name(Order order) { return kOrders[static_cast<int>(order)]; }
std::string name(Delivery delivery) { return kDeliveries[static_cast<int>(delivery)]; }

}  // namespace cnnkernels::interpreter
