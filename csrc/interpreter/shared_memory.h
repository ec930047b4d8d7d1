// The shared memory of a block: one arena an OS thread, poisoned anew for every block, with a red zone on
// both sides of the dynamic part and of each static array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared_array.h"
#include "state.h"

namespace cnnkernels::interpreter {

class SharedMemory {
 public:
  static constexpr std::size_t kMostStaticBytes = 48 * 1024;

  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // `most_bytes`: that a block may have, with its static arrays.
  void begin_block(std::size_t dynamic_bytes, std::size_t most_bytes);
  void end_block();
  unsigned char* dynamic() const { return base_ + kDynamicAt; }
  void* array(const SharedArray& key, std::size_t bytes, std::size_t alignment);
  // Where a red zone was written to: between which arrays, and how far from them.
  std::optional<std::string> overrun() const;

  bool holds(const void* pointer, std::size_t bytes) const;
  std::uint32_t address_of(const void* pointer) const {
    return static_cast<std::uint32_t>(static_cast<const unsigned char*>(pointer) - base_);
  }
  void* pointer_to(std::uint32_t address) const { return base_ + address; }

 private:
  static constexpr std::size_t kDynamicAt = 1024;  // addresses below are the system's on hardware too
  static constexpr std::size_t kRedZone = 128;

  struct Array {
    const SharedArray* key;
    std::size_t offset, bytes;
  };
  struct Zone {
    std::size_t begin, end;
  };
  void add_zone(std::size_t begin, std::size_t end);
  bool intact(const Zone& zone) const;
  std::string part(std::size_t i) const;

  void* mapping_ = nullptr;
  unsigned char* base_ = nullptr;
  std::size_t mapped_ = 0, arena_ = 0;
  std::size_t dynamic_bytes_ = 0, static_bytes_ = 0, most_bytes_ = 0;
  std::vector<Array> arrays_;
  std::vector<Zone> zones_;  // before, between and behind the dynamic part and the arrays
};

}  // namespace cnnkernels::interpreter
