// Bytes of global memory at any address, read by words and put into their places in registers.
#pragma once

#include "device.h"

namespace cnnkernels::int8 {

// Four consecutive bytes on their way: the one or two aligned words they lie in, and what to make of them.
// Words that hold none of the bytes wanted are not read.
struct Fetched {
  std::uint32_t low, high;
  std::uint32_t how;  // shift | first << 4 | end << 8
};

// Bytes [first, end) of the four at `from`; the others are not touched.
CNN_DEVICE Fetched fetch(const std::uint8_t* from, int first, int end) {
  const auto shift = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 3);
  const auto* words = reinterpret_cast<const std::uint32_t*>(from - shift);
  Fetched f{0, 0, static_cast<std::uint32_t>(shift | first << 4 | end << 8)};
  if (first >= end) f.how = 0;
  if (first < end && first < 4 - shift) f.low = words[0];
  if (first < end && end > 4 - shift) f.high = words[1];
  return f;
}

// The four bytes, lowest address first; those that were not wanted are the fill's.
CNN_DEVICE std::uint32_t assemble(const Fetched& f, std::uint32_t fill) {
  const int shift = f.how & 15, first = f.how >> 4 & 15, end = f.how >> 8;
  const std::uint32_t bytes = __byte_perm(f.low, f.high, 0x3210u + 0x1111u * shift);
  const std::uint32_t wanted = end > first ? 0xffffffffu >> 8 * (4 - end) & 0xffffffffu << 8 * first : 0;
  return (bytes & wanted) | (fill & ~wanted);
}

// A 4 x 4 matrix of bytes, a row a word.
CNN_DEVICE void transpose(std::uint32_t (&words)[4]) {
  const std::uint32_t a = __byte_perm(words[0], words[1], 0x5140),
                      b = __byte_perm(words[2], words[3], 0x5140);
  const std::uint32_t c = __byte_perm(words[0], words[1], 0x7362),
                      d = __byte_perm(words[2], words[3], 0x7362);
  words[0] = __byte_perm(a, b, 0x5410);
  words[1] = __byte_perm(a, b, 0x7632);
  words[2] = __byte_perm(c, d, 0x5410);
  words[3] = __byte_perm(c, d, 0x7632);
}

}  // namespace cnnkernels::int8
