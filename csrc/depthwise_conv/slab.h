// The slabs of forward and backward_input: which box of the source and of the result a block holds in shared
// memory. slab.cuh has the kernel.
//
// A group is a channel of the input with its m filters, in NCHW of one image. It has one unit of the source
// and m of the result forward, and the other way round backward, where the result adds up what its m units
// give.
#pragma once

#include "../common/shared_limits.h"
#include "correlate.h"
#include "region.h"

namespace cnnkernels::depthwise_conv {

inline constexpr std::int64_t kSlabBytes =
    48 * 1024;  // of shared memory where it can be: four blocks to an SM
inline constexpr std::int64_t kLargeSlabBytes = 96 * 1024;  // what every GPU has: for wide dilations
static_assert(kLargeSlabBytes <= kEveryBlockBytes);

struct Slab {
  Region source, result;
  std::int64_t bytes;
  Index source_at, zeros_at, result_at;                  // bytes into shared memory, after the filters
  Index groups, all_groups;                              // of a block, of all
  FastDivide units, strips, columns;                     // of the result's box
  FastDivide source_each, result_each;                   // units of a group
  FastDivide filters;                                    // of a group
  FastDivide group_blocks, strip_blocks, column_blocks;  // images, or planes, are the rest
  bool all_rows, all_columns;                            // the source's box is not cut
  std::uint8_t unused[6] = {};
};

// A filter of chunk x chunk taps finds the rows of its window once, for all of its columns; any other finds
// them column by column, by the narrowest chunk at most. Not every kernel has the code of both.
constexpr CNN_HOST_DEVICE bool slab_square(int chunk, bool transposed) { return chunk > 0 && !transposed; }
constexpr CNN_HOST_DEVICE bool slab_columns(int chunk) { return chunk <= 3; }
CNN_HOST_DEVICE bool is_square(const Correlation& c, int chunk) {
  return slab_square(chunk, c.a.transposed || c.b.transposed) && c.a.taps == chunk && c.b.taps == chunk &&
         c.b.dilation == 1;
}

// What results one after another read of an axis at most.
inline std::int64_t reach_of(const Axis& axis, std::int64_t results) {
  const std::int64_t beyond = (axis.taps - 1) * std::int64_t(axis.dilation);
  const std::int64_t read =
      axis.transposed ? (results + beyond) / axis.stride + 2 : (results - 1) * axis.stride + beyond + 1;
  return read < axis.source_size ? read : axis.source_size;
}

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// `c` with rows along a and columns along b. The plan's lanes are groups of NHWC, its images of NCHW.
inline Slab slab_of(const Correlation& c, const Plan& plan, int element_bytes) {
  Slab s{};
  const std::int64_t source_each = c.terms, result_each = c.multiplier.divisor;
  const std::int64_t channels = c.channels.divisor / result_each;  // groups of an image
  s.groups = c.channels_last ? plan.lanes : plan.images;
  s.all_groups = static_cast<Index>(c.channels_last ? channels : c.images * channels);
  s.source_each = FastDivide(source_each);
  s.result_each = FastDivide(result_each);
  s.filters = FastDivide(source_each * result_each);
  s.units = FastDivide(s.groups * result_each);
  s.strips = FastDivide(plan.strips);
  s.columns = FastDivide(plan.lines);
  s.group_blocks = FastDivide(c.channels_last ? ceil_div(channels, s.groups) : 1);
  s.strip_blocks = FastDivide(ceil_div(strips_along(c.a, plan), plan.strips));
  s.column_blocks = FastDivide(ceil_div(c.b.result_size, plan.lines));

  const std::int64_t results = std::int64_t(plan.strips) * strip_of(1, plan.chunk, c.a);
  const Extents source{channels * source_each, c.a.source_size, c.b.source_size};
  const Extents result{channels * result_each, c.a.result_size, c.b.result_size};
  const Extents read{s.groups * source_each, reach_of(c.a, results), reach_of(c.b, plan.lines)};
  const Extents made{s.groups * result_each, least(results, result.rows), least(plan.lines, result.columns)};
  s.all_rows = read.rows >= source.rows;
  s.all_columns = read.columns >= source.columns;
  s.source = region(c.source, c.channels_last, c.images, source, read, element_bytes);
  s.result = region(c.result, c.channels_last, c.images, result, made, element_bytes);

  const std::int64_t filters = s.groups * std::int64_t(s.filters.divisor) * c.a.taps * c.b.taps;
  const std::int64_t source_at =
      ceil_div(filters * (element_bytes == 8 ? 8 : 4), kVectorBytes) * kVectorBytes;
  const std::int64_t zeros_at = source_at + s.source.bytes(element_bytes);
  const std::int64_t zeros =
      ceil_div(read.columns * s.source.pitch_b * element_bytes, kVectorBytes) * kVectorBytes;
  s.source_at = static_cast<Index>(source_at);
  s.zeros_at = static_cast<Index>(zeros_at);
  s.result_at = static_cast<Index>(zeros_at + zeros);
  s.bytes = zeros_at + zeros + s.result.bytes(element_bytes);
  return s;
}

}  // namespace cnnkernels::depthwise_conv
