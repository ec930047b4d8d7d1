#include "shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>

#include "block.h"
#include "fault.h"

namespace cnnkernels::interpreter {
namespace {

// Both are NaN in every floating type and differ, so that a read is seen in the values and a write in the zone.
constexpr unsigned char kPoison = 0xff;
constexpr unsigned char kZone[2] = {0xf7, 0xff};

std::size_t up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

SharedMemory::SharedMemory() {
  // An inaccessible page follows. The first is aligned far beyond any swizzle pattern.
  constexpr std::size_t kAlignment = 64 * 1024;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  arena_ = up(kDynamicAt + kMostBytes + kMostStaticBytes + 64 * kRedZone, page);
  mapped_ = arena_ + page + kAlignment;
  mapping_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  base_ = reinterpret_cast<unsigned char*>(up(reinterpret_cast<std::uintptr_t>(mapping_), kAlignment));
  if (mprotect(base_, arena_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
}

SharedMemory::~SharedMemory() { munmap(mapping_, mapped_); }

void SharedMemory::begin_block(std::size_t dynamic_bytes) {
#if defined(CNN_TSAN)
  // ThreadSanitizer would take one block's use for a race with the next one's: gives it new memory.
  if (mmap(base_, arena_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
#endif
  arrays_.clear();
  dynamic_bytes_ = dynamic_bytes;
  static_bytes_ = 0;
  allow(base_, arena_);
  std::memset(dynamic(), kPoison, dynamic_bytes);
  poison_zone(kDynamicAt - kRedZone);
  poison_zone(kDynamicAt + dynamic_bytes);
  used_ = kDynamicAt + dynamic_bytes + kRedZone;
  forbid(base_ + used_, arena_ - used_);
}

void SharedMemory::end_block() { allow(base_, arena_); }

void SharedMemory::poison_zone(std::size_t offset) {
  for (std::size_t i = 0; i < kRedZone; ++i) base_[offset + i] = kZone[i % 2];
  forbid(base_ + offset, kRedZone);
}

void* SharedMemory::array(const SharedArray& key, std::size_t bytes, std::size_t alignment) {
  for (const Array& a : arrays_) {
    if (a.key == &key) return base_ + a.offset;
  }
  static_bytes_ += bytes;
  const Site here{};
  if (static_bytes_ > kMostStaticBytes) {
    fault(here, "static shared memory of " + std::to_string(static_bytes_) + " bytes with '" + key.name +
                    "' (" + key.file + ":" + std::to_string(key.line) + "); 48 KB is the most");
  }
  if (static_bytes_ + dynamic_bytes_ > kMostBytes) {
    fault(here, "static and dynamic shared memory of " + std::to_string(static_bytes_ + dynamic_bytes_) +
                    " bytes with '" + key.name + "'; 227 KB is the most");
  }
  // The zone before it is the one after its predecessor.
  const std::size_t offset = up(used_, alignment < 16 ? 16 : alignment);
  if (offset + bytes + kRedZone > arena_) fault(here, "too many static shared arrays");
  allow(base_ + used_, offset + bytes + kRedZone - used_);
  for (std::size_t i = used_; i < offset; ++i) base_[i] = kZone[i % 2];
  forbid(base_ + used_, offset - used_);
  std::memset(base_ + offset, kPoison, bytes);
  poison_zone(offset + bytes);
  used_ = offset + bytes + kRedZone;
  arrays_.push_back({&key, offset, bytes});
  return base_ + offset;
}

std::optional<std::size_t> SharedMemory::touched([[maybe_unused]] std::size_t zone,
                                                 [[maybe_unused]] bool backwards) const {
#if !defined(CNN_ASAN)  // there the access itself is reported
  for (std::size_t k = 0; k < kRedZone; ++k) {
    const std::size_t i = backwards ? kRedZone - 1 - k : k;
    if (base_[zone + i] != kZone[i % 2]) return k;
  }
#endif
  return std::nullopt;
}

std::optional<std::string> SharedMemory::overrun() const {
  const auto message = [](const std::string& what, std::size_t bytes, const char* where) {
    return "shared memory was written " + std::to_string(bytes) + " bytes " + where + " of " + what;
  };
  const std::string dynamic_name = "the dynamic shared memory";
  if (const auto at = touched(kDynamicAt - kRedZone, true)) {
    return message(dynamic_name, *at + 1, "before the start");
  }
  if (const auto at = touched(kDynamicAt + dynamic_bytes_, false)) {
    return message(dynamic_name + " of " + std::to_string(dynamic_bytes_) + " bytes", *at, "past the end");
  }
  for (const Array& a : arrays_) {
    if (const auto at = touched(a.offset + a.bytes, false)) {
      return message("'" + std::string(a.key->name) + "' (" + a.key->file + ":" + std::to_string(a.key->line) + ")",
                     *at, "past the end");
    }
  }
  return std::nullopt;
}

bool SharedMemory::holds(const void* pointer, std::size_t bytes) const {
  const auto at = static_cast<std::size_t>(static_cast<const unsigned char*>(pointer) - base_);
  if (at >= kDynamicAt && at <= kDynamicAt + dynamic_bytes_ && bytes <= kDynamicAt + dynamic_bytes_ - at) return true;
  for (const Array& a : arrays_) {
    if (at >= a.offset && at <= a.offset + a.bytes && bytes <= a.offset + a.bytes - at) return true;
  }
  return false;
}

// The words of api.h.

bool is_shared(const void* pointer, std::size_t bytes) { return current->block->shared.holds(pointer, bytes); }
std::uint32_t shared_address(const void* pointer) { return current->block->shared.address_of(pointer); }
void* shared_pointer(std::uint32_t address) { return current->block->shared.pointer_to(address); }
void* dynamic_shared() { return current->block->shared.dynamic(); }
void* shared_array(const SharedArray& key, std::size_t bytes, std::size_t alignment) {
  return current->block->shared.array(key, bytes, alignment);
}

void check_shared(const void* pointer, std::size_t bytes, std::size_t alignment, const char* what, Site site) {
  if (!is_shared(pointer, bytes)) {
    fault(site, std::string(what) + ": " + std::to_string(bytes) + " bytes are not (wholly) in shared memory");
  }
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    fault(site, std::string(what) + ": shared address " + std::to_string(shared_address(pointer)) +
                    " is not aligned to " + std::to_string(alignment) + " bytes");
  }
}

void poison(void* pointer, std::size_t bytes) { std::memset(pointer, kPoison, bytes); }

}  // namespace cnnkernels::interpreter
