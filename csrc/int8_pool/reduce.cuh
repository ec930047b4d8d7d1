// What becomes of a window's bytes: their maximum, or their average. Bytes come V at a time, four in a word,
// after an exclusive or with `flip`, which is chosen so that a byte of no place, left out of the window, is 0
// and changes nothing.
#pragma once

#include "../common/device.h"
#include "../common/index.h"
#include "../ptx/bytes.cuh"

namespace cnnkernels::int8_pool {

inline constexpr std::uint32_t kTopBits = 0x80808080u;

template <int V>
inline constexpr int kWords = V < 4 ? 1 : V / 4;

// V neighbouring bytes of a pixel.
template <int V>
struct Bytes {
  std::uint32_t word[kWords<V>];
};

// What both reductions are to the walk over a window (common/window.h).
template <int V>
struct OfBytes {
  static constexpr int kTogether = 3;
  using Element = Bytes<V>;
  std::uint32_t flip;

  CNN_DEVICE Bytes<V> nothing() const {
    Bytes<V> bytes;
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) bytes.word[i] = flip;
    return bytes;
  }
  CNN_DEVICE Bytes<V> flipped(Bytes<V> bytes) const {
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) bytes.word[i] ^= flip;
    return bytes;
  }
};

// As unsigned bytes: int8 with its top bit flipped is in their order.
struct Maximum {
  std::uint32_t flip;

  template <int V>
  struct Running : OfBytes<V> {
    std::uint32_t most[kWords<V>] = {};

    CNN_DEVICE void update(const Bytes<V>& bytes, Index) {
      const Bytes<V> flipped = this->flipped(bytes);
#pragma unroll
      for (int i = 0; i < kWords<V>; ++i) most[i] = larger_bytes(most[i], flipped.word[i]);
    }
    CNN_DEVICE void combine_lanes(int distance) {
#pragma unroll
      for (int i = 0; i < kWords<V>; ++i)
        most[i] = larger_bytes(most[i], __shfl_xor_sync(0xffffffffu, most[i], distance));
    }
  };

  template <int V>
  CNN_DEVICE void finish(const Running<V>& running, Index, Index, Bytes<V>& out) const {
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) out.word[i] = running.most[i] ^ flip;
  }
};

// As signed bytes: uint8 with its top bit flipped is 128 less.
struct Average {
  std::uint32_t flip;
  std::int32_t least;             // of the type
  std::int32_t zero_point;        // of the type
  std::int32_t divisor_override;  // 0: none
  bool count_include_pad;
  std::uint8_t unused[3] = {};

  template <int V>
  struct Running : OfBytes<V> {
    std::int32_t sum[V] = {};

    // A product with 1 and three zeros picks a byte and adds it.
    CNN_DEVICE void update(const Bytes<V>& bytes, Index) {
      const Bytes<V> flipped = this->flipped(bytes);
#pragma unroll
      for (int j = 0; j < V; ++j)
        sum[j] = __dp4a(static_cast<int>(flipped.word[j / 4]), 1 << (8 * (j % 4)), sum[j]);
    }
    CNN_DEVICE void combine_lanes(int distance) {
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], distance);
    }
  };

  // `inside` places of the input are in the window, `padded` with those of the padding.
  template <int V>
  CNN_DEVICE void finish(const Running<V>& running, Index inside, Index padded, Bytes<V>& out) const {
    const Index divisor = divisor_override != 0 ? divisor_override : count_include_pad ? padded : inside;
    const std::int32_t shift = inside * ((flip == 0 ? 0 : 128) - zero_point);
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) out.word[i] = 0;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float mean = __fdiv_rn(static_cast<float>(running.sum[j] + shift), static_cast<float>(divisor));
      const std::int32_t low = least - zero_point;
      const std::int32_t number = min(max(__float2int_rn(mean), low), low + 255) + zero_point;
      out.word[j / 4] |= (static_cast<std::uint32_t>(number) & 0xffu) << (8 * (j % 4));
    }
  }
};

}  // namespace cnnkernels::int8_pool
