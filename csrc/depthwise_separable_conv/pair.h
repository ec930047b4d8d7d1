// The pair of convolutions as its kernels see it: pointers, strides, and how output pixels fill tiles.
//
// All rows of all images' outputs stand one below the other, n P + p, so that small images fill patches too.
// A tile's pixels are a patch of this tall picture: neighbours in both directions, whose windows overlap.
#pragma once

#include "../common/activation.h"
#include "../common/fast_divide.h"
#include "../common/as_bits.h"
#include "depthwise_separable_conv.h"

namespace cnnkernels::depthwise_separable_conv {

inline constexpr int kChunkBytes = 16;
inline constexpr int kRowBytes = 128;  // of a pixel's channels that one stage holds
inline constexpr int kChunks = kRowBytes / kChunkBytes;
inline constexpr int kStrip = 4;                      // pixels a thread makes at a time
inline constexpr int kTaps = 49;                      // whose weights shared memory holds at a time
inline constexpr std::int32_t kOutside = -(1 << 30);  // a row outside every image

// What a block keeps in shared memory: two stages of filters and the depthwise weights, or in their place the
// tile of y on its way out; then the pixels of so many stages.
constexpr int working_bytes(int rows, int columns, int element, int accumulator) {
  const int stages = 2 * columns * kRowBytes + kTaps * (kRowBytes / element) * accumulator;
  const int staging =
      rows * 8 + (rows * columns + (rows > columns ? rows : columns) * (kChunkBytes / element)) * element;
  return stages > staging ? stages : staging;
}
constexpr int shared_bytes(int rows, int columns, int element, int accumulator, std::int64_t kept_stages) {
  return working_bytes(rows, columns, element, accumulator) +
         static_cast<int>(kept_stages) * rows * kRowBytes;
}

// What the kernel for Hopper has of them: two at least, so that one is made while the other is multiplied.
constexpr int sm90_pixel_tiles(std::int64_t kept_stages) {
  return kept_stages > 2 ? static_cast<int>(kept_stages) : 2;
}

// Elements from one index to the next of each axis.
struct Strides {
  std::int64_t n, c, h, w;
};

inline Strides strides(Layout layout, std::int64_t c, std::int64_t h, std::int64_t w) {
  return layout == Layout::nhwc ? Strides{c * h * w, 1, w * c, c} : Strides{c * h * w, h * w, w, 1};
}

struct Pair {
  Tensors at;
  Strides x, z, y;
  std::int32_t h, w, channels, filters;  // channels: the intermediate's
  std::int32_t r, s, lines, p, q;        // lines: N P
  std::int32_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  std::int32_t patch_rows, patch_columns;
  std::int32_t group_taps;  // min(R S, kTaps)
  FastDivide column_tiles, patches_across, by_p, by_s, by_group_taps, by_patch_columns, multiplier;
  Activation first, second;
  bool keeps;              // the intermediate of all channels stays for all of a block's column tiles
  bool pointwise_vectors;  // rows of the pointwise filter start at multiples of 16 bytes
  bool output_vectors;     // so do runs of the output along its contiguous axis
  bool planes;             // NCHW: that axis is a row of pixels
  AsBits<double> slope;
};

// An output pixel, with the corner of its window in the input.
struct Pixel {
  std::int32_t n, p, q;
  bool exists;
};

CNN_DEVICE Pixel pixel_at(const Pair& pair, std::uint32_t patch, int row) {
  std::uint32_t across, column, p;
  const std::uint32_t down = pair.patches_across.divmod(patch, across);
  const std::uint32_t line_in = pair.by_patch_columns.divmod(static_cast<std::uint32_t>(row), column);
  const std::uint32_t line = down * pair.patch_rows + line_in;
  const std::uint32_t n = pair.by_p.divmod(line, p);
  const auto q = static_cast<std::int32_t>(across * pair.patch_columns + column);
  return {static_cast<std::int32_t>(n), static_cast<std::int32_t>(p), q,
          static_cast<std::int32_t>(line) < pair.lines && q < pair.q};
}

}  // namespace cnnkernels::depthwise_separable_conv
