// wgmma's matrix descriptor: where in shared memory the elements of an operand lie.
#pragma once

#include <cstdint>

namespace cnnkernels::emulator {

struct MatrixDescriptor {
  std::uint32_t start = 0;  // bytes, as the two offsets
  std::uint32_t leading_offset = 0;
  std::uint32_t stride_offset = 0;
  int span = 0;  // of the swizzle: 0, 32, 64, 128

  static MatrixDescriptor decode(std::uint64_t bits);

  // Where the 16 bytes begin that hold a run of elements: along K, those of a row (of A's or B's; `index` 0
  // or 1, as an instruction's K is 32 bytes), or along M and N (`mn_major`) eight rows at one k.
  std::uint32_t chunk(int row, int index) const;
  std::uint32_t chunk_mn_major(int eight_rows, int k) const;
};

}  // namespace cnnkernels::emulator
