// Declarations of variables and parameters.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "emulator/ptx/cursor.h"
#include "emulator/types.h"

namespace cnnkernels::emulator {

struct Variable {
  std::string_view name;
  Space space = Space::generic;
  Type type = Type::none;
  std::size_t bytes = 0, align = 1;
  bool unsized = false;  // name[]
  int line = 0;
  std::vector<std::byte> initial;  // empty, or all bytes
  struct Pointer {
    std::size_t at;
    std::string_view name;  // whose address is added to what stands in `initial`
  };
  std::vector<Pointer> pointers;
};

// .shared, .global, .const, .local, .param: the space that the word names; `generic` where it is none of
// them.
Space space_of_directive(std::string_view word);

// After the space's directive: `.align 4 .b8 name[16] = {...}`, one name.
Variable variable(Cursor& cursor, Space space);

constexpr std::size_t aligned(std::size_t offset, std::size_t align) {
  return (offset + align - 1) / align * align;
}

}  // namespace cnnkernels::emulator
