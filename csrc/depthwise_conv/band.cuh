// What the kernels of band.h share: padded planes in shared memory, rows as bands, and their fragments.
#pragma once

#include "../common/launch.h"
#include "../ptx/ldmatrix.cuh"
#include "../ptx/mma.cuh"
#include "band.h"
#include "region.cuh"

namespace cnnkernels::depthwise_conv {

// A band is held as fragments of B want it: lane 4 g + c reads elements k - g and k - g + 1 with k = 2 c + 8
// m. Those begin at an odd place for every other g; so a row lies in shared memory twice, from its first
// element and from its second, and either way a lane reads one word. Seven zeros go before the row.
inline constexpr Index kBefore = 7;

template <class T>
CNN_DEVICE void put_band(T* row, Index half, Index i, T value) {
  row[kBefore + i] = value;
  row[half + kBefore - 1 + i] = value;
}

// Where a lane's first word lies in a row whose second copy begins at `half`; the m-th is 8 m elements on.
CNN_DEVICE Index band_place(Index lane, Index half) {
  const Index g = lane / 4, c = lane % 4;
  return g % 2 == 1 ? kBefore - g + 2 * c : half + kBefore - 1 - g + 2 * c;
}

template <class T>
CNN_DEVICE std::uint32_t band_word(const T* row) {
  return *reinterpret_cast<const std::uint32_t*>(row);
}

// A zero of the band times an infinity is no zero, so planes with one are summed tap by tap.
CNN_DEVICE bool is_finite(float16 x) { return (x.bits & 0x7c00) != 0x7c00; }
CNN_DEVICE bool is_finite(bfloat16 x) { return (x.bits & 0x7f80) != 0x7f80; }

// The lane's part of ldmatrix's two blocks of 8 columns: a row of 16, and the first or second block.
CNN_DEVICE Index lane_row(Index lane) { return lane % 16; }
CNN_DEVICE Index lane_column(Index lane) { return lane / 16 * kColumnTile; }

CNN_DEVICE void clear_shared(unsigned char* shared, Index bytes) {
  const Vector<std::uint32_t, 4> zeros{};
  for (Index i = static_cast<Index>(threadIdx.x) * kVectorBytes; i < bytes;
       i += static_cast<Index>(blockDim.x) * kVectorBytes)
    store(reinterpret_cast<std::uint32_t*>(shared + i), zeros);
}

// Calls put(channel, row, column, value) for every element of rows [begin, end) of some channels of an image.
template <class T, class Put>
CNN_DEVICE void for_each_element(const T* __restrict__ tensor, const View& view, bool channels_last,
                                 std::int64_t total, const FastDivide& width, Index image,
                                 Index first_channel, Index channels, Index begin, Index end, Put&& put) {
  constexpr Index V = kBandVector;
  const Index count = (end - begin) * extent(width);
  const std::int64_t from = image * view.image + first_channel * view.channel + begin * view.a;
  if (channels_last) {
    for (Index i = static_cast<Index>(threadIdx.x); i < count; i += static_cast<Index>(blockDim.x)) {
      Index row = i;
      const Index column = split(row, width);
      const std::int64_t at = from + row * view.a + column * view.b;
      const auto pixel = [&](auto wide) {
        constexpr int W = decltype(wide)::value;
        const auto values = load<W>(tensor + at);
#pragma unroll
        for (Index v = 0; v < W; ++v) put(v, begin + row, column, values[v]);
      };
      const Index head = head_of(tensor, at);
      if (channels == V && head == 0) {
        pixel(std::integral_constant<int, V>{});
      } else if (channels == V / 2 && head % (V / 2) == 0) {
        pixel(std::integral_constant<int, V / 2>{});
      } else {
#pragma unroll 1
        for (Index v = 0; v < channels; ++v) put(v, begin + row, column, tensor[at + v]);
      }
    }
    return;
  }
  for (Index channel = 0; channel < channels; ++channel) {
    const std::int64_t first = from + channel * view.channel;
    const Index head = head_of(tensor, first);
    for (Index i = static_cast<Index>(threadIdx.x) * V - head; i < count;
         i += static_cast<Index>(blockDim.x) * V) {
      Vector<T, V> run{};
      if (first + i >= 0 && first + i + V <= total) {
        run = load<V>(tensor + first + i);
      } else {
#pragma unroll
        for (Index v = 0; v < V; ++v)
          if (i + v >= 0 && i + v < count) run[v] = tensor[first + i + v];
      }
      Index row = max(i, Index(0));
      Index column = split(row, width);
#pragma unroll
      for (Index v = 0; v < V; ++v) {
        if (i + v < 0 || i + v >= count) continue;
        put(channel, begin + row, column, run[v]);
        if (++column == extent(width)) column = 0, ++row;
      }
    }
  }
}

}  // namespace cnnkernels::depthwise_conv
