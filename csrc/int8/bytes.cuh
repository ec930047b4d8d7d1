// Bytes of global memory at any address, read by words and put into their places in registers.
#pragma once

#include "../common/device.h"
#include "../common/vector.h"

namespace cnnkernels::int8 {

// Four consecutive bytes on their way: the one or two aligned words they lie in, and what to make of them.
struct Fetched {
  std::uint32_t low, high;
  std::uint32_t how;  // shift | first << 4 | end << 8
};

// Bytes [first, end) of the four at `from`, by the aligned words that hold one of them: what lies beside the
// bytes in those must be the tensor's too.
CNN_DEVICE Fetched fetch(const std::uint8_t* from, int first, int end) {
  const auto shift = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 3);
  const auto* words = reinterpret_cast<const std::uint32_t*>(from - shift);
  Fetched f{0, 0, static_cast<std::uint32_t>(shift | first << 4 | end << 8)};
  if (first >= end) f.how = 0;
  if (first < end && first < 4 - shift) f.low = words[0];
  if (first < end && end > 4 - shift) f.high = words[1];
  return f;
}

// The same where it may not be: no other byte is read.
CNN_DEVICE Fetched fetch_singly(const std::uint8_t* from, int first, int end) {
  Fetched f{0, 0, first < end ? static_cast<std::uint32_t>(first << 4 | end << 8) : 0};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i >= first && i < end) f.low |= std::uint32_t(from[i]) << (8 * i);
  return f;
}

// The four bytes, lowest address first; those that were not wanted are the fill's.
CNN_DEVICE std::uint32_t assemble(const Fetched& f, std::uint32_t fill) {
  const int shift = f.how & 15, first = f.how >> 4 & 15, end = f.how >> 8;
  const std::uint32_t bytes = __byte_perm(f.low, f.high, 0x3210u + 0x1111u * shift);
  const std::uint32_t wanted = end > first ? 0xffffffffu >> 8 * (4 - end) & 0xffffffffu << 8 * first : 0;
  return (bytes & wanted) | (fill & ~wanted);
}

// 16 bytes from `first` on, of a run of `length` at any address; those past its end are zeros, and none
// outside of it is read: the words it begins and ends in are, byte by byte.
CNN_DEVICE Vector<std::uint32_t, 4> read_sixteen(const std::uint8_t* run, std::int32_t first,
                                                 std::int32_t length) {
  const auto shift = static_cast<int>(reinterpret_cast<std::uintptr_t>(run + first) & 3);
  const std::int32_t begin = first - shift;  // of the first word, before the run for its first bytes
  const std::uint8_t* const from = run + begin;
  const int needed = shift > 0 ? 5 : 4;
  std::uint32_t words[5];
#pragma unroll
  for (int j = 0; j < 5; ++j) {
    const bool whole = j < needed && begin + 4 * j >= 0 && begin + 4 * j + 4 <= length;
    words[j] = whole ? reinterpret_cast<const std::uint32_t*>(from)[j] : 0;
  }
  if (begin < 0) {
#pragma unroll
    for (int i = 1; i < 4; ++i)
      if (i >= shift && begin + i < length) words[0] |= std::uint32_t(from[i]) << (8 * i);
  }
  const int last = (length - begin) / 4, rest = (length - begin) % 4;
  if (rest > 0 && last < needed && begin + 4 * last >= 0) {
    std::uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i)
      if (i < rest) word |= std::uint32_t(from[4 * last + i]) << (8 * i);
#pragma unroll
    for (int j = 0; j < 5; ++j)
      if (j == last) words[j] = word;
  }
  Vector<std::uint32_t, 4> sixteen;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    sixteen[j] = __byte_perm(words[j], words[j + 1], 0x3210u + 0x1111u * static_cast<unsigned>(shift));
  return sixteen;
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
