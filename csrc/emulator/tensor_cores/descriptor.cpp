#include "emulator/tensor_cores/descriptor.h"

#include <utility>

#include "emulator/fault.h"
#include "emulator/swizzle.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {

using enum WrongModel;

MatrixDescriptor MatrixDescriptor::decode(std::uint64_t bits) {
  constexpr int kSpans[] = {0, 128, 64, 32};
  const auto field = [&](int shift) { return static_cast<std::uint32_t>(bits >> shift & 0x3fff) << 4; };
  if ((bits >> 49 & 7) != 0) fault("a matrix descriptor with a base offset, of which nothing is proven");
  return {field(0), field(16), field(32), kSpans[bits >> 62]};
}

std::uint32_t MatrixDescriptor::chunk(int row, int index) const {
  std::uint32_t leading = leading_offset, stride = stride_offset;
  if (span == 0 && is_wrong(strides_swapped_k_major)) std::swap(leading, stride);
  if (span != 0 && is_wrong(stride_offset_ignored)) stride = 8 * span;
  const std::uint32_t eighths = row / 8 * stride;
  // Swizzled rows are one span apart, and a chunk follows the other; else 8 chunks of 8 rows follow each
  // other.
  const std::uint32_t offset =
      span != 0 ? eighths + row % 8 * span + index * 16 : eighths + row % 8 * 16 + index * leading;
  return swizzled(start + offset, start, span, Unit::wgmma);
}

std::uint32_t MatrixDescriptor::chunk_mn_major(int eight_rows, int k) const {
  std::uint32_t leading = leading_offset, stride = stride_offset;
  if (is_wrong(span != 0 ? strides_swapped_mn_major_swizzled : strides_swapped_mn_major))
    std::swap(leading, stride);
  if (span != 0 && is_wrong(leading_offset_ignored)) leading = 8 * span;
  std::uint32_t offset = 0;
  if (span != 0) {
    const int chunks = span / 16;
    offset = eight_rows % chunks * 16 + eight_rows / chunks * leading + k % 8 * span + k / 8 * stride;
  } else {
    offset = eight_rows * stride + k % 8 * 16 + k / 8 * leading;
  }
  return swizzled(start + offset, start, span, Unit::wgmma);
}

}  // namespace cnnkernels::emulator
