#include "guard_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>

namespace cnnkernels::interpreter {
namespace {

struct Allocation {
  std::size_t bytes;
  char* mapping;
  std::size_t mapped;
};
std::mutex pages_mutex;
std::map<std::uintptr_t, Allocation> allocations;

}  // namespace

void* guarded_alloc(std::size_t bytes, bool after) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t inside = (bytes + page - 1) / page * page;
  const std::size_t mapped = inside + 2 * page;
  void* memory = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  char* const mapping = static_cast<char*>(memory);
  if (inside != 0 && mprotect(mapping + page, inside, PROT_READ | PROT_WRITE) != 0) {
    munmap(memory, mapped);
    throw std::bad_alloc();
  }
  if (inside != 0) std::memset(mapping + page, 0xff, inside);
  char* const data = mapping + page + (after ? inside - bytes : 0);
  const std::lock_guard lock(pages_mutex);
  allocations[reinterpret_cast<std::uintptr_t>(data)] = {bytes, mapping, mapped};
  return data;
}

void guarded_free(void* pointer) {
  const std::lock_guard lock(pages_mutex);
  const auto found = allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == allocations.end()) throw std::invalid_argument("pointer is not of guarded_alloc");
  munmap(found->second.mapping, found->second.mapped);
  allocations.erase(found);
}

std::string near_guarded(std::uintptr_t address) {
  const std::lock_guard lock(pages_mutex);
  for (const auto& [start, a] : allocations) {
    const auto mapping = reinterpret_cast<std::uintptr_t>(a.mapping);
    if (address < mapping || address >= mapping + a.mapped) continue;
    const bool before = address < start;
    return std::to_string(before ? start - address : address - start - a.bytes) + " bytes " +
           (before ? "before the start" : "past the end") + " of a guarded allocation of " +
           std::to_string(a.bytes) + " bytes";
  }
  return "";
}

}  // namespace cnnkernels::interpreter
