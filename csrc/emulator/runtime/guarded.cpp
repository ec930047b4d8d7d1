#include "guarded.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>

namespace cnnkernels::emulator::runtime {

namespace {

constexpr std::size_t kPage = 4096;

struct Free {
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kPage}); }
};
struct Allocation {
  std::unique_ptr<std::byte, Free> memory;
  std::size_t bytes;  // between the guards
};

std::mutex allocations_mutex;
std::map<std::uintptr_t, Allocation> allocations;

std::uintptr_t begin_of(const Allocation& allocation) {
  return reinterpret_cast<std::uintptr_t>(allocation.memory.get());
}

}  // namespace

std::uintptr_t guarded_alloc(std::size_t bytes, bool after) {
  const std::size_t inside = (bytes + kPage - 1) / kPage * kPage;
  auto* const memory = new (std::align_val_t{kPage}) std::byte[inside + 2 * kPage];
  Allocation made{.memory = std::unique_ptr<std::byte, Free>(memory), .bytes = inside};
  std::memset(made.memory.get() + kPage, 0xff, inside);
  const std::uintptr_t data = begin_of(made) + kPage + (after ? inside - bytes : 0);
  const std::lock_guard lock(allocations_mutex);
  allocations[data] = std::move(made);
  return data;
}

void guarded_free(std::uintptr_t pointer) {
  const std::lock_guard lock(allocations_mutex);
  if (allocations.erase(pointer) == 0) throw std::invalid_argument("pointer is not of guarded_alloc");
}

std::vector<Range> guards() {
  const std::lock_guard lock(allocations_mutex);
  std::vector<Range> all;
  for (const auto& [data, allocation] : allocations) {
    all.push_back({begin_of(allocation), kPage});
    all.push_back({begin_of(allocation) + kPage + allocation.bytes, kPage});
  }
  return all;
}

}  // namespace cnnkernels::emulator::runtime
