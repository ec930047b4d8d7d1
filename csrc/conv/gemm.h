// The implicit GEMM every direction of a convolution becomes: C[row, column] = sum over depth of
// A[row, depth] B[column, depth], where A and B are views of tensors that no one ever copies into matrices.
//
//                    row               column   depth        A                     B
//   forward          pixel (q, p, n)   k        c, s, r      windows of the input  filter
//   backward_input   pixel (w, h, n)   c        k, s, r      windows of the error  filter, one phase at a
//   time backward_weight  c, s, r           k        q, p, n      windows of the input  error
//
// An index is read as up to three digits, and each digit moves by a stride in memory and by rows and columns
// in the window. So one kernel serves the three directions in both layouts: they differ by data, not by code.
#pragma once

#include <initializer_list>

#include "../common/fast_divide.h"
#include "../common/geometry.h"
#include "../common/types.h"
#include "../gemm/shared_tile.cuh"
#include "border.h"
#include "../common/epilogue.h"
#include "plan.h"

namespace cnnkernels::conv {

// Where an index leads: an offset in elements and a position in the window's image.
struct alignas(16) Place {
  std::int64_t offset = 0;
  std::int32_t h = 0, w = 0;
};

// A row that lies outside every image, whatever is added to it (problems stay within 2^30 rows).
inline constexpr std::int32_t kOutside = -(std::int32_t(1) << 30);

// One digit of an index: how many values it takes, the elements a step of it moves by, and how far that step
// moves in the window's image.
struct Digit {
  std::int64_t size, stride;
  std::int32_t h = 0, w = 0;
};

// An index in mixed radix, the fastest digit first: index = (d2 * size[1] + d1) * size[0] + d0.
struct Axis {
  std::int64_t extent = 1;
  FastDivide size[2];
  std::int64_t stride[3] = {};
  std::int32_t h[3] = {}, w[3] = {};

  Axis() = default;

  // Digits of size 1 are dropped and digits that continue each other are joined, so that "contiguous" shows.
  Axis(std::initializer_list<Digit> digits) {
    constexpr std::int64_t kLargest = std::int64_t(1) << 30;  // leaves room to step past the end
    Digit kept[3];
    int count = 0;
    for (const Digit& d : digits) {
      extent *= d.size;
      if (d.size >= kLargest) throw_invalid_argument("a convolution's size must be below 2^30");
      if (d.size == 0) {
        extent = 0;
        return;
      }
      if (d.size == 1) continue;
      if (count > 0) {
        Digit& last = kept[count - 1];
        const bool continues = d.stride == last.stride * last.size && d.h == last.h * last.size &&
                               d.w == last.w * last.size && last.size * d.size < kLargest;
        if (continues) {
          last.size *= d.size;
          continue;
        }
      }
      kept[count++] = d;
    }
    for (int i = 0; i < count; ++i) {
      stride[i] = kept[i].stride;
      h[i] = kept[i].h;
      w[i] = kept[i].w;
      if (i < 2) size[i] = FastDivide(kept[i].size);
    }
  }

  // May `chunk` neighbouring indices, the first a multiple of chunk, be moved as one aligned vector?
  bool contiguous(int chunk) const {
    return stride[0] == 1 && h[0] == 0 && w[0] == 0 && size[0].divisor % chunk == 0 &&
           stride[1] % chunk == 0 && stride[2] % chunk == 0;
  }
  // Does every index stay on multiples of `chunk` elements?
  bool keeps_alignment(int chunk) const {
    return stride[0] % chunk == 0 && stride[1] % chunk == 0 && stride[2] % chunk == 0;
  }
};

// A position on an axis, kept as digits so that stepping needs no division by the whole extent. Offsets are
// 64 bits wide everywhere: an address is a 64-bit sum in any case, so a second, 32-bit kernel would save
// nothing.
struct Cursor {
  std::uint32_t digit[3];
  Place place;
};

CNN_DEVICE void settle(const Axis& axis, Cursor& cursor) {
  cursor.place = Place{};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const auto d = static_cast<std::int32_t>(cursor.digit[i]);
    cursor.place.offset += d * axis.stride[i];
    cursor.place.h += d * axis.h[i];
    cursor.place.w += d * axis.w[i];
  }
}

CNN_DEVICE Cursor seek(const Axis& axis, std::int64_t index) {
  Cursor cursor;
  if (index < (std::int64_t(1) << 31)) {
    const std::uint32_t carry = axis.size[0].divmod(static_cast<std::uint32_t>(index), cursor.digit[0]);
    cursor.digit[2] = axis.size[1].divmod(carry, cursor.digit[1]);
  } else {
    const auto size0 = static_cast<std::int64_t>(axis.size[0].divisor);
    const auto size1 = static_cast<std::int64_t>(axis.size[1].divisor);
    const std::int64_t carry = index / size0;
    cursor.digit[0] = static_cast<std::uint32_t>(index - carry * size0);
    cursor.digit[1] = static_cast<std::uint32_t>(carry % size1);
    cursor.digit[2] = static_cast<std::uint32_t>(carry / size1);
  }
  settle(axis, cursor);
  return cursor;
}

// Mostly only the fastest digit moves; a carry is worked out only when it happens.
CNN_DEVICE void step(const Axis& axis, Cursor& cursor, std::int32_t by) {
  cursor.digit[0] += static_cast<std::uint32_t>(by);
  if (cursor.digit[0] < axis.size[0].divisor) {
    cursor.place.offset += by * axis.stride[0];
    cursor.place.h += by * axis.h[0];
    cursor.place.w += by * axis.w[0];
    return;
  }
  cursor.digit[1] += axis.size[0].divmod(cursor.digit[0], cursor.digit[0]);
  cursor.digit[2] += axis.size[1].divmod(cursor.digit[1], cursor.digit[1]);
  settle(axis, cursor);
}

// A or B: element (side, depth) lies at origin + side's offset + depth's offset, and is zero where its row or
// column leaves the image. A view that never leaves its image has one of a single pixel. Where there is a
// border, the image is the padded one, and elements lie as many further as its table says.
struct Operand {
  Place origin;
  const void* data = nullptr;
  std::int32_t height = 1, width = 1;
  std::int64_t group_stride = 0;
  Axis side, depth;
  Border border = {};  // A's alone
  std::int32_t unused = 0;
};

// C: element (row, column) lies at row's offset + column's offset.
struct Output {
  void* data = nullptr;
  std::int64_t group_stride = 0;
  Axis row, column;
};

struct Gemm {
  Operand a, b;
  Output c;
  Epilogue epilogue;  // its vectors hold one number a column
  std::int64_t groups = 1;
  std::int64_t image_elements = 0;  // of the tensor whose windows A is, for the cost model

  std::int64_t rows() const { return c.row.extent; }
  std::int64_t columns() const { return c.column.extent; }
  std::int64_t depth() const { return a.depth.extent; }
};

// What A, B and C are made of.
struct Element {
  DType dtype;
  bool tf32;
  int bytes() const { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
  int accumulator_bytes() const { return dtype == DType::float64 ? 8 : 4; }
  int depth_per_stage() const { return gemm::kTileRowBytes / bytes(); }
};

// Bytes of shared memory a block takes; the epilogue reuses the ring and the table of a border behind it.
// As Config::kSharedBytes.
inline constexpr int shared_bytes(int tile, int accumulator_bytes, int border = 0) {
  const Tile& t = kTiles[tile];
  const int ring = kStages * (t.rows + t.columns) * gemm::kTileRowBytes + border;
  const int staging =
      (t.rows + t.columns) * 8 + t.rows * t.columns * accumulator_bytes + larger(t.rows, t.columns) * 16;
  return larger(ring, staging);
}

inline std::int64_t blocks_of(const Gemm& gemm, const Tile& tile) {
  return ceil_div(gemm.rows(), tile.rows) * ceil_div(gemm.columns(), tile.columns) * gemm.groups;
}

}  // namespace cnnkernels::conv
