#include "emulator/asynchronous/box.h"

#include <algorithm>

#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

using enum WrongModel;

// A dimension of the box goes in steps of the element stride; the innermost's stride is ignored without
// interleave.
std::int64_t steps_of(const TensorMap& map, int dimension) {
  if (dimension == 0 || is_wrong(box_counts_elements)) return map.box[dimension];
  return (map.box[dimension] + map.element_strides[dimension] - 1) / map.element_strides[dimension];
}

std::int64_t tap_offset(const TensorMap& map, const BoxStart& start, int dimension) {
  const int spatial = map.rank - 2;
  const std::int64_t offset = start.offsets[dimension - 1];
  if (!any_wrong()) [[likely]]
    return offset;
  if (is_wrong(im2col_offsets_swapped)) return start.offsets[spatial - dimension];
  if (is_wrong(im2col_offsets_ignored)) return 0;
  if (is_wrong(im2col_offsets_strided)) return offset * map.element_strides[dimension];
  if (is_wrong(im2col_offsets_negative)) return -offset;
  return offset;
}

std::int64_t end_of(const TensorMap& map, int dimension) {
  const auto size = static_cast<std::int64_t>(map.sizes[dimension]);
  if (is_wrong(im2col_upper_ignored)) return size;
  return size + map.upper[dimension - 1] + (is_wrong(im2col_upper_inclusive) ? 1 : 0);
}

}  // namespace

BoxRows::BoxRows(const TensorMap& map, const BoxStart& start)
    : map_(map), start_(start), width_(map.im2col ? map.channels : map.box[0]) {
  if (map.im2col) {
    count_ = map.pixels;
    std::copy(start.at, start.at + kMostDimensions, place_);
    return;
  }
  for (int d = 1; d < map.rank; ++d) {
    steps_[d] = steps_of(map, d);
    count_ *= static_cast<std::uint32_t>(steps_[d]);
  }
}

BoxRow BoxRows::row(const std::int64_t* pixel) const {
  const auto channels = static_cast<std::int64_t>(map_.sizes[0]);
  const std::int64_t begin = start_.at[0];
  const std::int64_t first = std::clamp<std::int64_t>(-begin, 0, width_);
  const std::int64_t last = std::clamp<std::int64_t>(channels - begin, first, width_);
  BoxRow row;
  std::uint64_t address = map_.address + static_cast<std::uint64_t>(begin + first) * map_.strides[0];
  for (int d = 1; d < map_.rank; ++d) {
    const auto size = static_cast<std::int64_t>(map_.sizes[d]);
    std::int64_t at = pixel[d];
    if (is_wrong(box_clamped)) at = std::clamp<std::int64_t>(at, 0, size - 1);
    if (at < 0 || at >= size) {
      row.skipped = is_wrong(box_keeps_old_bytes);
      return row;
    }
    address += static_cast<std::uint64_t>(at) * map_.strides[d];
  }
  if (first == last) return row;
  row.address = address;
  row.first = static_cast<std::uint32_t>(first);
  row.last = static_cast<std::uint32_t>(last);
  return row;
}

void BoxRows::step_tiled() {
  if (is_wrong(box_order_reversed)) {
    for (int d = map_.rank - 1; d > 0; --d) {
      if (++place_[d] < steps_[d]) return;
      place_[d] = 0;
    }
    return;
  }
  for (int d = 1; d < map_.rank; ++d) {
    if (++place_[d] < steps_[d]) return;
    place_[d] = 0;
  }
}

// The filter's corner goes from place to place in the box of places, width first, then on to the next image.
void BoxRows::step_im2col() {
  const int spatial = map_.rank - 2;
  for (int i = 1; i <= spatial; ++i) {
    const int d = is_wrong(im2col_height_first) ? spatial + 1 - i : i;
    place_[d] += is_wrong(im2col_stride_ignored) ? 1 : map_.element_strides[d];
    if (place_[d] < end_of(map_, d)) return;
    place_[d] = map_.lower[d - 1];
    if (is_wrong(im2col_wraps_to_zero)) place_[d] = 0;
    if (is_wrong(im2col_wraps_to_start)) place_[d] = start_.at[d];
  }
  if (!is_wrong(im2col_never_next_image)) ++place_[spatial + 1];
}

BoxRow BoxRows::next() {
  std::int64_t pixel[kMostDimensions]{};
  if (map_.im2col) {
    for (int d = 1; d < map_.rank; ++d) pixel[d] = place_[d];
    for (int d = 1; d < map_.rank - 1; ++d) pixel[d] += tap_offset(map_, start_, d);
  } else {
    for (int d = 1; d < map_.rank; ++d) {
      const std::int64_t stride = is_wrong(element_stride_ignored) ? 1 : map_.element_strides[d];
      pixel[d] = start_.at[d] + place_[d] * stride;
    }
  }
  const BoxRow row = this->row(pixel);
  if (map_.im2col) {
    step_im2col();
  } else {
    step_tiled();
  }
  return row;
}

std::uint32_t box_bytes(const TensorMap& map) {
  std::uint32_t bytes = static_cast<std::uint32_t>(map.strides[0]);
  if (map.im2col) return bytes * map.channels * map.pixels;
  for (int d = 0; d < map.rank; ++d) bytes *= static_cast<std::uint32_t>(steps_of(map, d));
  return bytes;
}

}  // namespace cnnkernels::emulator
