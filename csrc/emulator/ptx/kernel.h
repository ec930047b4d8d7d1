// What an entry of a module and the functions it calls become: the code that warps run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/launch.h"
#include "emulator/ptx/instruction.h"

namespace cnnkernels::emulator {

struct SourcePlace {
  std::int32_t file = -1, line = 0;  // of .loc
};

struct Kernel {
  Entry entry;
  const Program* program = nullptr;  // whose it is
  std::vector<Instruction> code;
  std::vector<std::string_view> opcodes;          // of code; they point into the program's text
  std::vector<SourcePlace> places;                // of code
  std::vector<std::vector<std::int32_t>> tables;  // of brx.idx
  std::vector<std::unique_ptr<std::vector<Slot>>> lists;
  std::vector<std::unique_ptr<Details>> details;

  // A warp's registers when it starts: constants are in place, everything else is poison.
  std::vector<std::uint32_t> image;  // slots of kLanes words
  std::vector<Slot> accumulators;    // which may hold one of wgmma's in flight
  int predicates = 0;
  std::vector<Mask> predicate_image;
  struct Special {
    Slot slot;
    std::string name;
    bool wide;
  };
  std::vector<Special> specials;
  bool reads_clock = false;
  // Addresses in shared memory, to which a block adds its rank; those of dynamic memory also where that
  // begins.
  struct SharedAddress {
    Slot slot;
    std::uint32_t offset;
    bool dynamic, wide;
  };
  std::vector<SharedAddress> shared_addresses;

  std::uint32_t dynamic_shared = 0;  // where dynamic shared memory begins, in a block's window
  std::size_t local_bytes = 0;       // a thread's

  Slot new_register(int bytes) {
    Slot slot = static_cast<Slot>(image.size() / kLanes);
    image.resize(image.size() + kLanes * ((bytes + 3) / 4), kPoison);
    return slot;
  }
  static constexpr std::uint32_t kPoison = 0xffc1ffc1;  // a NaN as f32, f16 and bf16
};

}  // namespace cnnkernels::emulator
