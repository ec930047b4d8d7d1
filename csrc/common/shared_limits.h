// Shared memory that a block may have: static and dynamic, the static rounded up to 1 KB where there is both,
// as what is dynamic begins at a multiple of that (device.h). Of an SM's the driver keeps 1 KB for each
// block.
#pragma once

namespace cnnkernels {

inline constexpr int kReservedShared = 1024;

// Of every GPU that the kernels run on: what is the same on all of them keeps within it. common/gpu.h has
// each one's.
inline constexpr int kEveryBlockBytes = 100 * 1024 - kReservedShared;
// Of compute capability 9.0.
inline constexpr int kSm90BlockBytes = 228 * 1024 - kReservedShared;

// What a block takes; both are constants where this is asserted.
constexpr int block_bytes(int dynamic_bytes, int static_bytes) {
  constexpr int kAlignment = 1024;
  return dynamic_bytes + (static_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace cnnkernels
