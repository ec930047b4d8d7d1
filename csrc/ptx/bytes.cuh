// Four bytes in one register, compared at once.
#pragma once

#include "../common/device.h"

namespace cnnkernels {

// The larger of each pair of unsigned bytes.
CNN_DEVICE std::uint32_t larger_bytes(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __vmaxu4(a, b);
#else
  std::uint32_t larger = 0;
  for (std::uint32_t byte = 0xff; byte != 0; byte <<= 8) {
    larger |= (a & byte) > (b & byte) ? a & byte : b & byte;
  }
  return larger;
#endif
}

}  // namespace cnnkernels
