// Writes a block's tile of C: what the epilogue makes of the sums (epilogue.h), rounded once, each element
// once. The tile passes through shared memory so that the stores run along whichever axis is contiguous in
// memory.
#pragma once

#include <type_traits>

#include "../common/activation.h"
#include "../common/types.h"
#include "../common/vector.h"
#include "gemm.h"
#include "../gemm/shared_tile.cuh"

namespace cnnkernels::conv {

// How C is stored; decided by the launcher.
struct Store {
  bool along_rows = false;  // memory is contiguous along C's rows (NCHW), not its columns (NHWC, filters)
  bool vectors = false;     // and in aligned runs of 16 bytes
};

// Chunks of a line of the staged tile start 16 bytes off the line before: neighbouring lines meet different
// banks.
template <class T>
inline constexpr int kPadding = gemm::kChunkBytes / sizeof(T);

// The offset of each row and column, then the tile.
template <class T, int Rows, int Columns>
inline constexpr int kStagingBytes = (Rows + Columns) * sizeof(std::int64_t) +
                                     (Rows * Columns + larger(Rows, Columns) * kPadding<T>)*sizeof(T);

// Is there more to an epilogue than numbers of each filter? Then it is applied output by output.
CNN_DEVICE bool by_output(const Epilogue& epilogue) {
  return epilogue.residual != nullptr || epilogue.activation != Activation::none;
}

// N elements of shared memory, 16 bytes at a time.
template <int N, class T>
CNN_DEVICE Vector<T, N> load_run(const T* from) {
  constexpr int kVector = gemm::kChunkBytes / sizeof(T), kChunk = N < kVector ? N : kVector;
  Vector<T, N> run;
#pragma unroll
  for (int i = 0; i < N; i += kChunk) {
    const auto chunk = load<kChunk>(from + i);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) run[i + j] = chunk[j];
  }
  return run;
}

// Bias, scale and shift, on the sums in registers: scale (sum + bias) + shift. `first`: the block's first
// column among all groups' columns; `columns`: those of its group from there on.
template <class T, class Engine>
CNN_DEVICE void apply_to_columns(Engine& engine, const Epilogue& epilogue, std::int64_t first,
                                 std::int64_t columns) {
  using Sum = Accumulator<T>;
  const auto number = [&](const void* all, int column, Sum otherwise) {
    return all != nullptr && column < columns ? widen(static_cast<const T*>(all)[first + column]) : otherwise;
  };
  if (epilogue.bias != nullptr) {
    engine.map_columns([&](int column) {
      const Sum bias = number(epilogue.bias, column, Sum(0));
      return [bias](Sum sum) { return sum + bias; };
    });
  }
  if (epilogue.scale != nullptr || epilogue.shift != nullptr) {
    engine.map_columns([&](int column) {
      const Sum scale = number(epilogue.scale, column, Sum(1)),
                shift = number(epilogue.shift, column, Sum(0));
      return [scale, shift](Sum sum) { return multiply_add(scale, sum, shift); };
    });
  }
}

// What becomes of a run of outputs on its way from shared memory to C: nothing, ...
struct AsItIs {
  static constexpr int kUnroll = 2;
  template <class T, int N>
  CNN_DEVICE Vector<T, N> operator()(const Vector<T, N>& values, std::int64_t) const {
    return values;
  }
};

// ... or residual, activation and rounding. The activation is looked at once a run, outside the loop over it.
template <class T>
struct Finish {
  using Sum = Accumulator<T>;
  static constexpr int kUnroll = 1;
  const T* residual;
  Activation activation;
  Sum slope;

  template <int N>
  CNN_DEVICE Vector<T, N> operator()(Vector<Sum, N> sums, std::int64_t offset) const {
    if (residual != nullptr) {
      const auto more = load<N>(residual + offset);
#pragma unroll
      for (int i = 0; i < N; ++i) sums[i] += widen(more[i]);
    }
    with_activation(activation, [&](auto which) {
#pragma unroll
      for (int i = 0; i < N; ++i) sums[i] = activate(decltype(which)::value, sums[i], slope);
    });
    Vector<T, N> rounded;
#pragma unroll
    for (int i = 0; i < N; ++i) rounded[i] = narrow<T>(sums[i]);
    return rounded;
  }
};

// A block's tile of C in shared memory that every thread of the block has finished with.
template <int Rows, int Columns, int Threads>
class StagedTile {
 public:
  CNN_DEVICE StagedTile(const Output& output, bool along_rows, std::int64_t first_row,
                        std::int64_t first_column, unsigned char* staging)
      : offset_(reinterpret_cast<std::int64_t*>(staging)), along_rows_(along_rows) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < Rows + Columns; i += Threads) {
      const Axis& axis = i < Rows ? output.row : output.column;
      const std::int64_t index = i < Rows ? first_row + i : first_column + (i - Rows);
      offset_[i] = index < axis.extent ? seek(axis, index).place.offset : kNowhere;
    }
  }

  // Puts a block's sums there, in elements of T.
  template <class T, class Engine>
  CNN_DEVICE void fill(const Engine& engine) {
    const int row_pitch = along_rows_ ? 1 : Columns + kPadding<T>;
    const int column_pitch = along_rows_ ? Rows + kPadding<T> : 1;
    T* to = tile<T>();
    engine.each([&](int row, int column, Accumulator<T> value) {
      to[row * row_pitch + column * column_pitch] = narrow<T>(value);
    });
    __syncthreads();
  }

  // Stores what finish(run, offset) makes of each run of the T it was filled with at data + offset. Lines run
  // along the contiguous axis.
  template <class T, class Stored, class Finish>
  CNN_DEVICE void store(Stored* data, bool vectors, const Finish& finish) const {
    if (vectors) {
      store_runs<T, gemm::kChunkBytes / sizeof(Stored)>(data, finish);
    } else {
      store_runs<T, 1>(data, finish);
    }
  }

 private:
  static constexpr std::int64_t kNowhere = -1;

  template <class T>
  CNN_DEVICE T* tile() const {
    return reinterpret_cast<T*>(offset_ + Rows + Columns);
  }

  template <class T, int kWidth, class Stored, class Finish>
  CNN_DEVICE void store_runs(Stored* data, const Finish& finish) const {
    const int length = along_rows_ ? Rows : Columns, pitch = length + kPadding<T>, runs = length / kWidth;
    const std::int64_t* along = along_rows_ ? offset_ : offset_ + Rows;
    const std::int64_t* across = along_rows_ ? offset_ + Rows : offset_;
    const T* from = tile<T>();
#pragma unroll(Finish::kUnroll)
    for (int i = static_cast<int>(threadIdx.x); i < Rows * Columns / kWidth; i += Threads) {
      const int line = i / runs, start = (i - line * runs) * kWidth;
      if (across[line] == kNowhere || along[start] == kNowhere) continue;
      const std::int64_t offset = across[line] + along[start];
      cnnkernels::store(data + offset, finish(load_run<kWidth>(from + line * pitch + start), offset));
    }
  }

  std::int64_t* offset_;  // of each row, then of each column, then the tile
  bool along_rows_;
};

}  // namespace cnnkernels::conv
