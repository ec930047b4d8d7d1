// Read-modify-write operations, as atom, red, bulk reductions and mbarriers use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "emulator/types.h"

namespace cnnkernels::emulator {

enum class AtomicOperation : std::uint8_t {
  none,
  add,
  min,
  max,
  bit_and,
  bit_or,
  bit_xor,
  exchange,
  compare,
  increment,
  decrement
};

AtomicOperation atomic_operation_named(std::string_view word);

// What becomes of `old`, both as bits in the low bytes.
std::uint64_t combine(AtomicOperation operation, Type type, std::uint64_t old, std::uint64_t value,
                      std::uint64_t compare = 0);

// On memory that other OS threads may change at the same time: atomic for the whole value, which is aligned.
// The old value is returned.
std::uint64_t atomic_on_memory(std::byte* place, AtomicOperation operation, Type type, std::uint64_t value,
                               std::uint64_t compare = 0);

}  // namespace cnnkernels::emulator
