// What becomes of a window's bytes: their maximum, or their average. Bytes come V at a time, four in a word,
// after an exclusive or with `flip`, which is chosen so that a byte of no place, left out of the window, is 0
// and changes nothing.
#pragma once

#include "../common/device.h"
#include "../common/pool_axis.h"
#include "../ptx/bytes.cuh"

namespace cnnkernels::int8_pool {

inline constexpr std::uint32_t kTopBits = 0x80808080u;

template <int V>
inline constexpr int kWords = V < 4 ? 1 : V / 4;

// As unsigned bytes: int8 with its top bit flipped is in their order.
struct Maximum {
  std::uint32_t flip;

  template <int V>
  struct Running {
    std::uint32_t most[kWords<V>] = {};

    CNN_DEVICE void meet(const std::uint32_t (&bytes)[kWords<V>]) {
#pragma unroll
      for (int i = 0; i < kWords<V>; ++i) most[i] = larger_bytes(most[i], bytes[i]);
    }
    CNN_DEVICE void meet_lane(int distance) {
#pragma unroll
      for (int i = 0; i < kWords<V>; ++i)
        most[i] = larger_bytes(most[i], __shfl_xor_sync(0xffffffffu, most[i], distance));
    }
  };

  template <int V>
  CNN_DEVICE void finish(const Running<V>& running, Index, Index, std::uint32_t (&bytes)[kWords<V>]) const {
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) bytes[i] = running.most[i] ^ flip;
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
  struct Running {
    std::int32_t sum[V] = {};

    // A product with 1 and three zeros picks a byte and adds it.
    CNN_DEVICE void meet(const std::uint32_t (&bytes)[kWords<V>]) {
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] = __dp4a(static_cast<int>(bytes[j / 4]), 1 << (8 * (j % 4)), sum[j]);
    }
    CNN_DEVICE void meet_lane(int distance) {
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], distance);
    }
  };

  // `inside` places of the input are in the window, `padded` with those of the padding.
  template <int V>
  CNN_DEVICE void finish(const Running<V>& running, Index inside, Index padded,
                         std::uint32_t (&bytes)[kWords<V>]) const {
    const Index divisor = divisor_override != 0 ? divisor_override : count_include_pad ? padded : inside;
    const std::int32_t shift = inside * ((flip == 0 ? 0 : 128) - zero_point);
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) bytes[i] = 0;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float mean = __fdiv_rn(static_cast<float>(running.sum[j] + shift), static_cast<float>(divisor));
      const std::int32_t low = least - zero_point;
      const std::int32_t number = min(max(__float2int_rn(mean), low), low + 255) + zero_point;
      bytes[j / 4] |= (static_cast<std::uint32_t>(number) & 0xffu) << (8 * (j % 4));
    }
  }
};

}  // namespace cnnkernels::int8_pool
