// A tensor map where a kernel keeps it: in its parameters, in constant, global or shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "emulator/machine/state.h"
#include "emulator/memory/address.h"
#include "emulator/tensor_map.h"

namespace cnnkernels::emulator {

std::span<std::byte, kTensorMapBytes> map_bytes(Warp& warp, int lane, Space space, std::uint64_t address,
                                                Access access);

}  // namespace cnnkernels::emulator
