#include "emulator/memory/address.h"

#include <algorithm>

#include "emulator/ptx/kernel.h"

namespace cnnkernels::emulator {

namespace {

constexpr std::uint64_t kLowestAddress = 4096;  // below there is nothing on any system

using Long = unsigned long long;

void check_alignment(int lane, std::uint64_t address, std::uint32_t bytes, std::uint32_t align) {
  if (address & (align - 1))
    fault_of_lane(lane, "the address %#llx is misaligned for an access of %u bytes", (Long)address, bytes);
}

std::byte* local_place(Warp& warp, int lane, std::uint64_t address, std::uint32_t bytes) {
  if (address + bytes > warp.local_bytes())
    fault_of_lane(lane, "local address %#llx (%u bytes) is outside of the thread's %zu bytes", (Long)address,
                  bytes, warp.local_bytes());
  return warp.local(lane) + address;
}

std::byte* param_place(Warp& warp, int lane, std::uint64_t address, std::uint32_t bytes, Access access) {
  const auto& parameters = warp.cluster->state.launch.parameters;
  if (access != Access::read) fault_of_lane(lane, "a write to the kernel's parameters");
  if (address + bytes > parameters.size())
    fault_of_lane(lane, "parameter address %#llx (%u bytes) is outside of the %zu bytes of parameters",
                  (Long)address, bytes, parameters.size());
  return const_cast<std::byte*>(parameters.data()) + address;  // read alone
}

// An access by a thread itself.
std::byte* shared_access(Warp& warp, int lane, Space space, std::uint64_t address, std::uint32_t bytes,
                         Access access) {
  const SharedPlace place = shared_place(warp, lane, space, address, bytes, 1);
  SharedMemory& shared = place.block->shared;
  if (access != Access::write && !shared.written(place.offset, bytes))
    fault_of_lane(lane, "shared memory at %#x (%u bytes) is read, which nothing has written", place.offset,
                  bytes);
  if (access == Access::write) shared.mark_written(place.offset, bytes);
  if (Races* races = warp.cluster->races.get()) {
    const int rank = place.block->rank, line = warp.cluster->state.kernel.code[warp.position].line;
    if (place.block != warp.block) races->touch_remotely(warp.cluster_index, rank, line);
    switch (access) {
      case Access::read:
        races->read(warp.cluster_index, rank, place.offset, bytes, line, lane);
        break;
      case Access::write:
        races->write(warp.cluster_index, rank, place.offset, bytes, line, lane, place.bytes());
        break;
      case Access::atomic:
        races->atomic(warp.cluster_index, rank, place.offset, bytes, line, lane);
        break;
    }
  }
  return place.bytes();
}

}  // namespace

SharedPlace shared_place(Warp& warp, int lane, Space space, std::uint64_t address, std::uint32_t bytes,
                         std::uint32_t align) {
  if (space == Space::generic && window_of(address) != kSharedWindow)
    fault_of_lane(lane, "generic address %#llx is not in shared memory", (Long)address);
  const std::uint32_t rank = static_cast<std::uint32_t>(address) >> kRankShift;
  const std::uint32_t offset = static_cast<std::uint32_t>(address) & kOffsetMask;
  check_alignment(lane, offset, bytes, align);
  Cluster& cluster = *warp.cluster;
  if (rank >= cluster.blocks.size())
    fault_of_lane(lane, "shared address %#x is of block %u of the cluster, which has %zu",
                  (std::uint32_t)address, rank, cluster.blocks.size());
  Block& block = cluster.blocks[rank];
  if (&block != warp.block) {
    if (space == Space::shared)
      fault_of_lane(lane, "shared::cta address %#x is another block's", (std::uint32_t)address);
    if (block.ended()) fault_of_lane(lane, "shared memory of block %u of the cluster, which has ended", rank);
  }
  if (offset < SharedMemory::kStart || offset + bytes > block.shared.end())
    fault_of_lane(lane, "shared address %#x (%u bytes) is outside of the block's %#x to %#x", offset, bytes,
                  SharedMemory::kStart, block.shared.end());
  return {&block, offset};
}

std::byte* global_place(Warp& warp, int lane, std::uint64_t address, std::uint64_t bytes) {
  const std::vector<Range>& ranges = warp.cluster->state.memory;
  bool inside = address >= kLowestAddress && window_of(address) == 0;
  if (!ranges.empty()) {
    auto range =
        std::upper_bound(ranges.begin(), ranges.end(), address,
                         [](std::uint64_t address, const Range& range) { return address < range.begin; });
    inside = range != ranges.begin() && address + bytes <= (range - 1)->begin + (range - 1)->bytes;
  }
  for (const Range& guard : warp.cluster->mode().guards)
    inside &= address + bytes <= guard.begin || address >= guard.begin + guard.bytes;
  if (!inside)
    fault_of_lane(lane, "global address %#llx (%llu bytes) is outside of what the launch may touch",
                  (Long)address, (Long)bytes);
  return reinterpret_cast<std::byte*>(address);
}

std::byte* place(Warp& warp, int lane, Space space, std::uint64_t address, std::uint32_t bytes,
                 Access access) {
  if (space == Space::shared || space == Space::cluster) address = static_cast<std::uint32_t>(address);
  check_alignment(lane, address, bytes, std::min(bytes, 16u));
  if (space == Space::generic || space == Space::global || space == Space::constant) {
    const std::uint64_t window = window_of(address);
    if (window == kParamWindow) return param_place(warp, lane, address - window, bytes, access);
    if (space == Space::generic && window == kSharedWindow)
      return shared_access(warp, lane, space, address, bytes, access);
    if (space == Space::generic && window == kLocalWindow)
      return local_place(warp, lane, address - window, bytes);
    return global_place(warp, lane, address, bytes);
  }
  if (space == Space::local) return local_place(warp, lane, address, bytes);
  if (space == Space::param) return param_place(warp, lane, address, bytes, access);
  return shared_access(warp, lane, space, address, bytes, access);
}

}  // namespace cnnkernels::emulator
