#include "shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "cluster.h"
#include "fault.h"

namespace cnnkernels::interpreter {
namespace {

// Both are NaN in every floating type and differ, so that a read is seen in the values and a write in the
// zone.
constexpr unsigned char kPoison = 0xff;
constexpr auto kPattern = [] {
  std::array<unsigned char, 258> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = i % 2 == 0 ? 0xf7 : 0xff;
  return bytes;
}();

std::size_t up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

SharedMemory::SharedMemory() {
  // An inaccessible page follows. The first is aligned far beyond any swizzle pattern.
  constexpr std::size_t kAlignment = 64 * 1024;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  arena_ = up(kDynamicAt + kMostSharedBytes + kMostStaticBytes + 64 * kRedZone, page);
  mapped_ = arena_ + page + kAlignment;
  mapping_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  base_ = reinterpret_cast<unsigned char*>(up(reinterpret_cast<std::uintptr_t>(mapping_), kAlignment));
  if (mprotect(base_, arena_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
}

SharedMemory::~SharedMemory() { munmap(mapping_, mapped_); }

void SharedMemory::begin_block(std::size_t dynamic_bytes, std::size_t most_bytes) {
#if defined(CNN_TSAN)
  // ThreadSanitizer would take one block's use for a race with the next one's: gives it new memory.
  const std::size_t used = zones_.empty() ? 0 : zones_.back().end;
  if (used != 0 && mmap(base_, used, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                        0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
#endif
  arrays_.clear();
  dynamic_bytes_ = dynamic_bytes;
  most_bytes_ = most_bytes;
  static_bytes_ = 0;
  allow(base_, arena_);
  std::memset(dynamic(), kPoison, dynamic_bytes);
  zones_.clear();
  add_zone(kDynamicAt - kRedZone, kDynamicAt);
  add_zone(kDynamicAt + dynamic_bytes, kDynamicAt + dynamic_bytes + kRedZone);
  forbid(base_ + zones_.back().end, arena_ - zones_.back().end);
}

void SharedMemory::end_block() { allow(base_, arena_); }

void SharedMemory::add_zone(std::size_t begin, std::size_t end) {
  for (std::size_t at = begin; at < end; ++at) base_[at] = kPattern[at % 2];
  forbid(base_ + begin, end - begin);
  zones_.push_back({begin, end});
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
  // What is dynamic begins at a multiple of kDynamicAt there, so that the arrays before it take as much.
  const std::size_t both = up(static_bytes_, dynamic_bytes_ > 0 ? kDynamicAt : 1) + dynamic_bytes_;
  if (both > most_bytes_) {
    fault(here, "static and dynamic shared memory of " + std::to_string(both) + " bytes with '" + key.name +
                    "'; " + std::to_string(most_bytes_) + " are the most");
  }
  // The zone behind what came before reaches up to it.
  const Zone before = zones_.back();
  const std::size_t offset = up(before.end, std::max<std::size_t>(alignment, 16));
  const std::size_t end = offset + bytes;
  if (end + kRedZone > arena_) fault(here, "too many static shared arrays");
  zones_.pop_back();
  allow(base_ + before.begin, end + kRedZone - before.begin);
  add_zone(before.begin, offset);
  std::memset(base_ + offset, kPoison, bytes);
  add_zone(end, end + kRedZone);
  arrays_.push_back({&key, offset, bytes});
  return base_ + offset;
}

bool SharedMemory::intact(const Zone& zone) const {
  for (std::size_t at = zone.begin; at < zone.end; at += kPattern.size() - 2) {
    const std::size_t bytes = std::min(zone.end - at, kPattern.size() - 2);
    if (std::memcmp(base_ + at, &kPattern[at % 2], bytes) != 0) return false;
  }
  return true;
}

std::optional<std::string> SharedMemory::overrun() const {
#if !defined(CNN_ASAN)  // there the access itself is reported
  for (std::size_t i = 0; i < zones_.size(); ++i) {
    if (intact(zones_[i])) continue;
    std::size_t at = zones_[i].begin;
    while (base_[at] == kPattern[at % 2]) ++at;
    std::string message = "shared memory was written ";
    if (i != 0) message += std::to_string(at - zones_[i].begin) + " bytes past the end of " + part(i - 1);
    if (i != 0 && i <= arrays_.size()) message += ", ";
    if (i <= arrays_.size())
      message += std::to_string(zones_[i].end - at) + " bytes before the start of " + part(i);
    return message;
  }
#endif
  return std::nullopt;
}

std::string SharedMemory::part(std::size_t i) const {
  if (i == 0) return "the dynamic shared memory of " + std::to_string(dynamic_bytes_) + " bytes";
  const SharedArray& key = *arrays_[i - 1].key;
  return "'" + std::string(key.name) + "' (" + key.file + ":" + std::to_string(key.line) + ")";
}

bool SharedMemory::holds(const void* pointer, std::size_t bytes) const {
  const auto at = static_cast<std::size_t>(static_cast<const unsigned char*>(pointer) - base_);
  if (at >= kDynamicAt && at <= kDynamicAt + dynamic_bytes_ && bytes <= kDynamicAt + dynamic_bytes_ - at)
    return true;
  for (const Array& a : arrays_) {
    if (at >= a.offset && at <= a.offset + a.bytes && bytes <= a.offset + a.bytes - at) return true;
  }
  return false;
}

// The words of api.h.

bool is_shared(const void* pointer, std::size_t bytes) {
  return current->block->shared.holds(pointer, bytes);
}
std::uint32_t shared_address(const void* pointer) {
  Cluster& cluster = current->block->cluster;
  for (unsigned rank = 0; rank < cluster.size(); ++rank) {
    const SharedMemory& shared = cluster.block(rank).shared;
    if (shared.holds(pointer, 0)) return shared.address_of(pointer);
  }
  return current->block->shared.address_of(pointer);
}
void* shared_pointer(std::uint32_t address) { return current->block->shared.pointer_to(address); }
void* dynamic_shared() { return current->block->shared.dynamic(); }
void* shared_array(const SharedArray& key, std::size_t bytes, std::size_t alignment) {
  return current->block->shared.array(key, bytes, alignment);
}

void check_shared(const void* pointer, std::size_t bytes, std::size_t alignment, const char* what,
                  Site site) {
  if (!is_shared(pointer, bytes)) {
    fault(site,
          std::string(what) + ": " + std::to_string(bytes) + " bytes are not (wholly) in shared memory");
  }
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    fault(site, std::string(what) + ": shared address " + std::to_string(shared_address(pointer)) +
                    " is not aligned to " + std::to_string(alignment) + " bytes");
  }
}

void poison(void* pointer, std::size_t bytes) { std::memset(pointer, kPoison, bytes); }

}  // namespace cnnkernels::interpreter
