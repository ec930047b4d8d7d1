// A box of a tensor between global and shared memory: what TMA does, without when.
#pragma once

#include <cstdint>
#include <vector>

#include "emulator/asynchronous/box.h"
#include "emulator/machine/state.h"
#include "emulator/memory/atomic.h"
#include "emulator/swizzle.h"

namespace cnnkernels::emulator {

// The 16-byte chunks of a box in shared memory, in the box's order: function(offset in the box, offset in
// memory).
template <class Function>
void for_each_chunk(const TensorMap& map, std::uint32_t tile, std::uint32_t bytes, Function function) {
  for (std::uint32_t at = 0; at < bytes; at += 16) {
    function(at, swizzled(tile + at, tile, map.swizzle_bytes, Unit::tma));
  }
}

// `warp` and `lane` are who asked, for what global memory they may touch.
void load_box(Warp& warp, int lane, const TensorMap& map, const BoxStart& start, Block& block,
              std::uint32_t tile);
std::vector<std::byte> read_box(const TensorMap& map, Block& block, std::uint32_t tile);
void store_box(Warp& warp, int lane, const TensorMap& map, const BoxStart& start,
               const std::vector<std::byte>& box, AtomicOperation operation);

// What a box counts at its mbarrier.
std::uint32_t counted_bytes(const TensorMap& map, const BoxStart& start);

}  // namespace cnnkernels::emulator
