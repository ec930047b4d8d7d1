// A block's part of a tensor in shared memory: a box of units x rows x columns, where a unit is a plane of
// NCHW or a channel of NHWC. Whatever the box, it consists of pieces of consecutive elements, and a piece
// lies in shared memory at the same distance from a multiple of 16 bytes as in global memory: so it is copied
// by 16-byte accesses, either way, for any width, number of channels and address. region.cuh copies.
#pragma once

#include "views.h"

namespace cnnkernels::depthwise_conv {

inline constexpr int kVectorBytes = 16;

enum class Pieces {
  planes,  // whole planes of NCHW
  rows,    // whole rows: of each plane, or of NHWC with all channels
  row,     // a part of each row: of each plane, or of NHWC with all channels
  pixel,   // some channels of each pixel
};

struct Region {
  std::int64_t row, inner, total;  // of the tensor: from one piece to the next (inner: in a row), elements
  Index pitch_inner;               // the same in shared memory; of the rows it is pitch_a
  Index pitch_unit, pitch_a, pitch_b;  // in shared memory: from one unit, row, column to the next
  Pieces pieces;
  FastDivide vectors;  // of 16 bytes that a piece touches at most
  FastDivide inners;   // pieces of a row at most
  std::int32_t unused = 0;
  std::int64_t elements;  // of shared memory

  std::int64_t bytes(int element_bytes) const {
    return ceil_div(elements * element_bytes, kVectorBytes) * kVectorBytes;
  }
};

// The tensor's extents as its box may reach them.
struct Extents {
  std::int64_t units, rows, columns;
};

// For boxes of at most `box`.
inline Region region(const View& view, bool channels_last, std::int64_t images, const Extents& tensor,
                     const Extents& box, int element_bytes) {
  const std::int64_t vector = kVectorBytes / element_bytes;
  // At least `least` and aligned as `stride`, so that the vectors of two pieces never meet.
  const auto apart = [&](std::int64_t least, std::int64_t stride) {
    least += 2 * (vector - 1);
    return least + ((stride - least) % vector + vector) % vector;
  };
  Region r{};
  r.row = view.a;
  r.total = images * tensor.units * tensor.rows * tensor.columns;
  const bool planes = !channels_last && box.units > 1;
  std::int64_t piece, pitch_a = view.a, pitch_b = view.b, pitch_unit = channels_last ? 1 : view.channel;
  if (channels_last && box.units < tensor.units) {
    r.pieces = Pieces::pixel;
    piece = box.units;
    pitch_b = apart(piece, view.b);
    pitch_a = apart(box.columns * pitch_b, view.a);
    r.elements = box.rows * pitch_a;
  } else if (box.columns < tensor.columns) {
    r.pieces = Pieces::row;
    piece = box.columns * view.b;
    pitch_a = apart(piece, view.a);
    r.elements = box.rows * pitch_a;
  } else if (planes && box.rows >= tensor.rows) {
    r.pieces = Pieces::planes;
    r.elements = piece = box.units * view.channel;
  } else {
    r.pieces = Pieces::rows;
    r.elements = piece = box.rows * view.a;
  }
  if (r.pieces == Pieces::pixel) {
    r.inner = view.b;
    r.pitch_inner = static_cast<Index>(pitch_b);
    r.inners = FastDivide(box.columns);
  } else if (planes && r.pieces != Pieces::planes) {
    r.inner = view.channel;
    pitch_unit = apart(r.elements, view.channel);
    r.pitch_inner = static_cast<Index>(pitch_unit);
    r.inners = FastDivide(box.units);
    r.elements = box.units * pitch_unit;
  }
  r.elements += 2 * vector;
  r.pitch_unit = static_cast<Index>(pitch_unit);
  r.pitch_a = static_cast<Index>(pitch_a);
  r.pitch_b = static_cast<Index>(pitch_b);
  r.vectors = FastDivide(ceil_div(piece, vector) + 1);
  return r;
}

}  // namespace cnnkernels::depthwise_conv
