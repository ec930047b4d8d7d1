// Dense tensors 16 elements at a time: 16 bytes of int8 beside 16 elements of another type.
//
// A chunk begins where the written tensor is aligned to 16 bytes, so whole chunks are stored in 16-byte
// vectors whatever the tensor's length and start. They are loaded in 16-byte vectors too: where the tensor
// that is read is aligned otherwise, vectors around the chunk are shifted into place in registers. Only
// chunks over an end of a tensor, or of a row that is a block's own, go element by element.
#pragma once

#include <cstring>
#include <type_traits>

#include "../common/types.h"
#include "../common/vector.h"

namespace cnnkernels::quantize {

inline constexpr int kChunk = 16;  // elements
template <class T>
inline constexpr int kPerVector = 16 / static_cast<int>(sizeof(T));

struct Span {
  std::int64_t begin, end;  // elements
};

// A tensor to be written, by the 16-byte boundary at or before its start: chunk c begins 16 c elements after
// it, at the tensor's element 16 c - head. (An address computed with the head would not be known to be
// aligned, and nvcc splits its vectors.)
template <class T>
struct Written {
  T* boundary;
  std::int32_t head, unused = 0;

  explicit Written(T* tensor)
      : head(static_cast<int>(reinterpret_cast<std::uintptr_t>(tensor) % 16 / sizeof(T))) {
    boundary = tensor - head;
  }
  CNN_DEVICE std::int64_t first_of(std::int64_t chunk) const { return chunk * kChunk - head; }
};

// The chunks of so many elements.
inline std::int64_t chunks_of(std::int64_t count, int head) { return (count + head + kChunk - 1) / kChunk; }

// An element as it is kept: fp64 is narrowed to fp32 at once.
template <class T>
using Kept = std::conditional_t<std::is_same_v<T, double>, float, T>;
template <class T>
CNN_DEVICE Kept<T> keep(T x) {
  return static_cast<Kept<T>>(x);
}

// 16 elements from any multiple of their size, by vectors around them; `shift` is the address modulo 16.
template <class T>
CNN_DEVICE void read_shifted(const T* from, std::uint32_t shift, T (&x)[kChunk]) {
  constexpr int kWords = kChunk * sizeof(T) / 4;
  const auto* words =
      reinterpret_cast<const std::uint32_t*>(reinterpret_cast<const std::uint8_t*>(from) - shift);
  std::uint32_t word[kWords + 4];
  const auto fetch = [&](int i) {
    const Vector<std::uint32_t, 4> four = load<4>(words + i);
    for (int k = 0; k < 4; ++k) word[i + k] = four[k];
  };
#pragma unroll
  for (int i = 0; i < kWords; i += 4) fetch(i);
  if (shift != 0) {
    fetch(kWords);
    if ((shift & 8) != 0) {
#pragma unroll
      for (int i = 0; i < kWords + 2; ++i) word[i] = word[i + 2];
    }
    if ((shift & 4) != 0) {
#pragma unroll
      for (int i = 0; i < kWords + 1; ++i) word[i] = word[i + 1];
    }
    if (sizeof(T) < 4 && (shift & 3) != 0) {
      const std::uint32_t bits = 8 * (shift & 3);
#pragma unroll
      for (int i = 0; i < kWords; ++i) word[i] = word[i] >> bits | word[i + 1] << (32 - bits);
    }
  }
  std::memcpy(x, word, sizeof x);
}

// Elements [first, first + 16) of a tensor of `count` elements; those outside are zeros.
template <class T>
CNN_DEVICE void read_chunk(const T* __restrict__ tensor, std::int64_t count, std::int64_t first,
                           Kept<T> (&x)[kChunk]) {
  const T* from = tensor + first;
  const auto shift = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(from) % 16);
  const int around = shift == 0 ? 0 : kPerVector<T>;
  const bool inside = first >= around && first + kChunk + around <= count;
  if constexpr (sizeof(T) == 8) {
    if (inside && shift == 0) {
#pragma unroll
      for (int i = 0; i < kChunk; i += 2) {
        const Vector<T, 2> two = load<2>(from + i);
        x[i] = keep(two[0]);
        x[i + 1] = keep(two[1]);
      }
      return;
    }
  } else {
    if (inside) return read_shifted(from, shift, x);
  }
#pragma unroll
  for (int j = 0; j < kChunk; ++j) {
    x[j] = Kept<T>{};
    if (first + j >= 0 && first + j < count) x[j] = keep(from[j]);
  }
}

// Stores those elements of a chunk that lie in the span.
template <class T>
CNN_DEVICE void write_chunk(const Written<T>& tensor, const Span& span, std::int64_t chunk,
                            const T (&x)[kChunk]) {
  T* const to = tensor.boundary + chunk * kChunk;
  const std::int64_t first = tensor.first_of(chunk);
  if (first < span.begin || first + kChunk > span.end) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      if (first + j >= span.begin && first + j < span.end) to[j] = x[j];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kChunk; i += kPerVector<T>) {
    Vector<T, kPerVector<T>> values;
#pragma unroll
    for (int j = 0; j < kPerVector<T>; ++j) values[j] = x[i + j];
    store(to + i, values);
  }
}

}  // namespace cnnkernels::quantize
