// Which group an element belongs to, and what a group is quantized by.
#pragma once

#include "../common/fast_divide.h"
#include "chunks.cuh"
#include "quantize.h"

namespace cnnkernels::quantize {

// The elements of a tensor [outer, groups, inner].
struct Groups {
  std::int64_t inner;
  std::int32_t count;
  std::int32_t step;  // elements of a chunk from one group to the next
  FastDivide by_inner, by_count;
  bool wide;  // elements are beyond 32-bit arithmetic
  std::uint8_t unused[7] = {};

  Groups(const Grouped& shape, std::int64_t largest_index)
      : inner(shape.inner),
        count(static_cast<std::int32_t>(shape.groups)),
        step(static_cast<std::int32_t>(shape.inner < kChunk ? shape.inner : kChunk)),
        wide(shape.outer * shape.groups * shape.inner + period() > largest_index) {
    if (shape.groups > INT32_MAX) throw_invalid_argument("quantize: more than 2^31 - 1 groups");
    if (wide) return;
    by_inner = FastDivide(inner);
    by_count = FastDivide(count);
  }

  // Groups come round after so many elements.
  CNN_HOST_DEVICE std::int64_t period() const { return inner * count; }

  // Where a walk through a chunk is: the group of its next element, and the place in the chunk where the
  // group after it begins.
  struct Walk {
    std::int32_t group, next;
  };
  CNN_DEVICE Walk at(std::int64_t first) const {
    if (count == 1) return {0, kChunk};
    while (first < 0) first += period();  // the head of the first chunk
    std::int64_t segment, group;
    if (wide) {
      segment = first / inner;
      group = segment % count;
    } else {
      segment = by_inner.quotient(static_cast<std::uint32_t>(first));
      std::uint32_t remainder;
      by_count.divmod(static_cast<std::uint32_t>(segment), remainder);
      group = remainder;
    }
    const std::int64_t left = inner - (first - segment * inner);
    return {static_cast<std::int32_t>(group), static_cast<std::int32_t>(left < kChunk ? left : kChunk)};
  }
  // Moves on if place j is of the next group.
  CNN_DEVICE bool enters(Walk& walk, int j) const {
    if (j != walk.next) return false;
    walk.group = walk.group + 1 == count ? 0 : walk.group + 1;
    walk.next += step;
    return true;
  }
};

// The fp32 value of an element.
template <class T>
CNN_DEVICE float value_of(T x) {
  return static_cast<float>(widen(x));
}

// The scale that makes a group's largest magnitude 127, as far as it and its inverse are normal numbers: only
// an infinity, which saturates, goes beyond.
CNN_DEVICE float dynamic_scale(float largest) {
  return largest == 0 ? 1.0f : fminf(fmaxf(__fdiv_rn(largest, 127.0f), 0x1p-126f), 0x1p126f);
}

// One group's quantization to int8 (least = -128) or uint8 (least = 0).
struct Quantizer {
  float inverse;
  std::int32_t zero_point, low;  // `low` is the least before the zero point is added

  CNN_DEVICE std::uint8_t operator()(float x) const {
    const int rounded = __float2int_rn(__fmul_rn(x, inverse));  // saturates; 0 for a NaN
    return static_cast<std::uint8_t>(min(max(rounded, low), low + 255) + zero_point);
  }
};

CNN_DEVICE Quantizer quantizer_of(float scale, std::int32_t zero_point, std::int32_t least) {
  return {__fdiv_rn(1.0f, scale), zero_point, least - zero_point};
}
CNN_DEVICE float scale_at(const Quantization& by, std::int32_t group) {
  return by.scales == nullptr ? float(by.scale) : by.scales[group];
}
CNN_DEVICE std::int32_t zero_point_at(const Quantization& by, std::int32_t group) {
  return by.zero_points == nullptr ? by.zero_point : by.zero_points[group];
}

}  // namespace cnnkernels::quantize
