#include "emulator/asynchronous/map_memory.h"

namespace cnnkernels::emulator {

std::span<std::byte, kTensorMapBytes> map_bytes(Warp& warp, int lane, Space space, std::uint64_t address,
                                                Access access) {
  if (address % 64 != 0) fault_of_lane(lane, "a tensor map is not aligned to 64 bytes");
  std::byte* first = place(warp, lane, space, address, 16, access);
  for (int at = 16; at < kTensorMapBytes; at += 16) place(warp, lane, space, address + at, 16, access);
  return std::span<std::byte, kTensorMapBytes>(first, kTensorMapBytes);
}

}  // namespace cnnkernels::emulator
