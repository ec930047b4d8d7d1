// Where TMA puts, and wgmma looks for, the bytes of a swizzled tile. With rows of 128 bytes, say, eight rows
// below each other would put their n-th 16-byte chunks into the same banks; so row r's chunks are permuted by
// an exclusive or with r. In the address, the chunk's number lies in bits 4-6 and the row's in bits 7-9:
//   swizzled = address ^ ((address >> 7 & mask) << 4),   mask = 7, 3, 1, 0 for spans of 128, 64, 32, 0 bytes
// The address is the absolute one: buffers are aligned to 8 spans (1024, 512, 256
// bytes), where the pattern begins.
#pragma once

#include "tensor_map.h"

namespace cnnkernels {

// Bytes of a row that chunks are permuted within; 16, a chunk that stays where it is, without swizzle.
CNN_HOST_DEVICE constexpr int swizzle_span(Swizzle swizzle) { return 16 << static_cast<int>(swizzle); }

// Works on an offset into a buffer that begins where the pattern begins, as well.
CNN_HOST_DEVICE constexpr std::uint32_t swizzled(std::uint32_t address, Swizzle swizzle) {
  const std::uint32_t mask = (1u << static_cast<int>(swizzle)) - 1;
  return address ^ ((address >> 7 & mask) << 4);
}

}  // namespace cnnkernels
