// A border of an image's own pixels, for the padding modes reflect, replicate and circular, read through the
// index: no padded copy is made. A row of the padded image repeats a row of the image, so it is found some
// elements away from where it would be if the image went on; columns likewise. These distances are a table
// that a block keeps in shared memory.
#pragma once

#include "../common/device.h"
#include "../common/geometry.h"

namespace cnnkernels::conv {

// Rows and columns of the padded image that the table may have, 4 bytes each.
inline constexpr std::int64_t kBorderEntries = 4096;

// The row (or column) of an image of `size` that row `at` repeats, where that is at most one image away.
CNN_HOST_DEVICE std::int32_t repeated(PaddingMode mode, std::int32_t at, std::int32_t size) {
  if (at >= 0 && at < size) return at;
  if (mode == PaddingMode::reflect) return at < 0 ? -at : 2 * (size - 1) - at;
  if (mode == PaddingMode::replicate) return at < 0 ? 0 : size - 1;
  return at < 0 ? at + size : at - size;  // circular
}

// One axis of the padded image: rows `first` to `first + count - 1` of an image of `size`, with `stride`
// elements from one to the next.
struct BorderAxis {
  std::int32_t first = 0, count = 1, size = 1, stride = 0;

  CNN_HOST_DEVICE std::int32_t distance(PaddingMode mode, std::int32_t at) const {
    return (repeated(mode, at, size) - at) * stride;
  }
};

struct Border {
  PaddingMode mode = PaddingMode::zeros;  // zeros: none, and what is outside is not read
  BorderAxis h, w;

  CNN_HOST_DEVICE bool exists() const { return mode != PaddingMode::zeros; }
  int bytes() const { return exists() ? 4 * (h.count + w.count) : 0; }  // of the table
};

}  // namespace cnnkernels::conv
