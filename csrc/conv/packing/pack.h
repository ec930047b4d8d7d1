// Copies of 16-bit tensors into the memory that the fast kernels read, and back: channels together, padded
// with zeros to whole runs of 16 bytes. packing.h says which convolutions are worth it.
#pragma once

#include "../conv.h"

namespace cnnkernels::conv {

// How one tensor is copied. The destination is dense, and its index is read as six digits, the fastest first:
// the source moves by a stride with each. Of a packed tensor they are
//
//   channel, its group, column, row, image (or filter of a group), group of filters
//
// and a channel is (column tap, channel of the source): the taps of a window's row lie side by side where
// rows are packed, else there is one tap. What lies outside of the source is zero. Digits that lead nowhere
// have size 1.
struct Copy {
  const void* from = nullptr;
  void* to = nullptr;
  std::int64_t elements = 0;  // of the destination, below 2^31
  std::int64_t origin = 0;    // elements of the source
  std::int64_t size[6] = {1, 1, 1, 1, 1, 1}, stride[6] = {};
  std::int64_t channels = 0, tap_stride = 0, taps = 1;  // of the first digit; channels 0: it is one number
  std::int64_t column_step = 0, tap_step = 0, pad = 0,
               width = 1;    // columns of the source, to see which are outside
  std::int64_t filters = 0;  // of a group, without the padding; 0: all
  // Planes [image][channel][pixel] from or to packed pixels [image][pixel][group, channel] go through shared
  // memory, so that both sides are read and written in whole lines.
  enum class Planes { no, from, to } planes = Planes::no;
};

// A run of 16 bytes in elements; channels are padded to multiples of it.
inline constexpr std::int64_t kPackedChunk = 8;
inline std::int64_t whole_chunks(std::int64_t channels) {
  return ceil_div(channels, kPackedChunk) * kPackedChunk;
}

// What a packed image's columns are: the image's own, or the taps of a window's row for each of `columns`
// windows.
struct Row {
  std::int64_t columns, taps = 1, stride = 1, pad = 0, dilation = 1;
};

Copy pack_image(Layout layout, std::int64_t n, std::int64_t groups, std::int64_t c, std::int64_t h,
                std::int64_t w, const Row& row, const void* from, void* to);
// [k][c][r][s] to [group][k, padded][r][s][c, padded]; `rows`: to [k, padded][r][s c, padded].
Copy pack_filter(Layout layout, std::int64_t groups, std::int64_t k, std::int64_t c, std::int64_t r,
                 std::int64_t s, bool rows, const void* from, void* to);
Copy unpack_image(Layout layout, std::int64_t n, std::int64_t groups, std::int64_t c, std::int64_t h,
                  std::int64_t w, const void* from, void* to);
Copy unpack_filter(Layout layout, std::int64_t groups, std::int64_t k, std::int64_t c, std::int64_t r,
                   std::int64_t s, bool rows, const void* from, void* to);

// All of them in one launch, in any order.
inline constexpr int kMostCopies = 6;
struct Copies {
  Copy copy[kMostCopies];
  int count = 0;
  void add(const Copy& one) {
    if (one.from != nullptr) copy[count++] = one;
  }
};
void launch_copies(const Copies& copies, std::uintptr_t stream);

}  // namespace cnnkernels::conv
