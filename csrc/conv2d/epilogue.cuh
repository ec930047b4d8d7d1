// Writes a block's tile of C: bias added in the accumulator's precision, one rounding, each element once. The
// tile passes through shared memory so that the stores run along whichever axis is contiguous in memory.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../common/types.h"
#include "../common/vector.h"
#include "problem.h"
#include "shared_tile.cuh"

namespace cnnkernels::conv2d {

// How C is stored; decided by the launcher.
struct Store {
  bool along_rows = false;  // memory is contiguous along C's rows (NCHW), not its columns (NHWC, filters)
  bool vectors = false;     // and in aligned runs of 16 bytes
};

// Chunks of a line of the staged tile start 16 bytes off the line before: neighbouring lines meet different
// banks.
template <class T>
inline constexpr int kPadding = kChunkBytes / sizeof(T);

// The offset of each row and column, then the tile.
template <class T, int Rows, int Columns>
inline constexpr int kStagingBytes = (Rows + Columns) * sizeof(std::int64_t) +
                                     (Rows * Columns + std::max(Rows, Columns) * kPadding<T>)*sizeof(T);

// T is the stored type. `staging` is shared memory that every thread of the block has finished with.
template <class T, int Rows, int Columns, int Threads, class Engine>
CNN_DEVICE void store_tile(const Engine& engine, const Output& output, T* data, Store how,
                           std::int64_t first_row, std::int64_t first_column, unsigned char* staging) {
  auto* row_offset = reinterpret_cast<std::int64_t*>(staging);
  auto* column_offset = row_offset + Rows;
  T* tile = reinterpret_cast<T*>(column_offset + Columns);
  constexpr std::int64_t kNowhere = -1;
  const int thread = static_cast<int>(threadIdx.x);

  const auto offsets = [&](const Axis& axis, std::int64_t first, int count, std::int64_t* to) {
    const Cursor origin = seek(axis, first);
#pragma unroll 1
    for (int i = thread; i < count; i += Threads) {
      Cursor cursor = origin;
      step(axis, cursor, i);
      to[i] = first + i < axis.extent ? cursor.place.offset : kNowhere;
    }
  };
  offsets(output.row, first_row, Rows, row_offset);
  offsets(output.column, first_column, Columns, column_offset);

  const int row_pitch = how.along_rows ? 1 : Columns + kPadding<T>;
  const int column_pitch = how.along_rows ? Rows + kPadding<T> : 1;
  engine.each([&](int row, int column, Accumulator<T> value) {
    tile[row * row_pitch + column * column_pitch] = narrow<T>(value);
  });
  __syncthreads();

  // Lines run along the contiguous axis.
  const int length = how.along_rows ? Rows : Columns, pitch = length + kPadding<T>;
  const std::int64_t* along = how.along_rows ? row_offset : column_offset;
  const std::int64_t* across = how.along_rows ? column_offset : row_offset;
  const auto write = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    const int line_chunks = length / kWidth;
#pragma unroll 2
    for (int i = thread; i < Rows * Columns / kWidth; i += Threads) {
      const int line = i / line_chunks, start = (i - line * line_chunks) * kWidth;
      if (across[line] == kNowhere || along[start] == kNowhere) continue;
      store(data + across[line] + along[start], load<kWidth>(tile + line * pitch + start));
    }
  };
  if (how.vectors) {
    write(std::integral_constant<int, kChunkBytes / sizeof(T)>{});
  } else {
    write(std::integral_constant<int, 1>{});
  }
}

}  // namespace cnnkernels::conv2d
