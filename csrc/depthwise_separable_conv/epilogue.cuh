// Writes a block's tile of y: the bias is added in the accumulator's precision, and rounding happens where
// the convolution and the activation, one after the other, would round. Each element is written once. The
// tile passes through shared memory so that the stores run along whichever axis is contiguous.
#pragma once

#include "depthwise.cuh"

namespace cnnkernels::depthwise_separable_conv {

// Lines of the staged tile start 16 bytes off the line before: neighbouring lines meet different banks.
template <class T>
inline constexpr int kPadding = kChunkBytes / static_cast<int>(sizeof(T));

// `staging` is shared memory that every thread of the block has finished with: it takes the offset of each
// pixel, then the tile (pair.h counts the bytes).
template <class T, int Rows, int Columns, int Threads, class Engine>
CNN_DEVICE void store_tile(const Pair& pair, const Engine& engine, std::uint32_t patch, int first_filter,
                           unsigned char* staging) {
  constexpr std::int64_t kNowhere = -1;
  auto* offset = reinterpret_cast<std::int64_t*>(staging);
  T* tile = reinterpret_cast<T*>(offset + Rows);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < Rows) {
    const Pixel pixel = pixel_at(pair, patch, thread);
    offset[thread] = pixel.exists ? pixel.n * pair.y.n + pixel.p * pair.y.h + pixel.q * pair.y.w : kNowhere;
  }

  const int row_pitch = pair.planes ? 1 : Columns + kPadding<T>;
  const int column_pitch = pair.planes ? Rows + kPadding<T> : 1;
  const T* bias = static_cast<const T*>(pair.at.pointwise_bias);
  engine.each([&](int row, int column, Accumulator<T> sum) {
    const int filter = first_filter + column;
    if (bias != nullptr && filter < pair.filters) sum += widen(bias[filter]);
    tile[row * row_pitch + column * column_pitch] = narrow<T>(sum);
  });
  __syncthreads();
  if (pair.second != Activation::none) {
#pragma unroll 1  // an activation is much code: here it stands once
    for (int i = thread; i < Rows * Columns; i += Threads) {
      T& value = tile[i + (pair.planes ? i / Rows : i / Columns) * kPadding<T>];
      value = narrow<T>(activate(pair.second, widen(value), static_cast<Accumulator<T>>(pair.slope)));
    }
    __syncthreads();
  }

  T* output = static_cast<T*>(pair.at.output);
  const int length = pair.planes ? Rows : Columns, pitch = length + kPadding<T>;
  const auto write = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    const int pieces = length / kWidth;
#pragma unroll 1
    for (int i = thread; i < Rows * Columns / kWidth; i += Threads) {
      const int line = i / pieces, start = (i - line * pieces) * kWidth;
      const int row = pair.planes ? start : line, filter = first_filter + (pair.planes ? line : start);
      if (offset[row] == kNowhere || filter >= pair.filters) continue;
      store(output + offset[row] + filter * pair.y.c, load<kWidth>(tile + line * pitch + start));
    }
  };
  if (pair.output_vectors) {
    write(std::integral_constant<int, kPadding<T>>{});
  } else {
    write(std::integral_constant<int, 1>{});
  }
}

}  // namespace cnnkernels::depthwise_separable_conv
