// Which thread has which elements of [outer, channels, inner], whether channels are adjacent or pixels are.
//
// A thread has V adjacent elements at a time: of V channels where inner is 1, else of one channel. Either way
// they are a position of a group: the group is V channels, or one; its positions are all rows, or the vectors
// of V pixels in all planes. A block has some groups beside each other and a part of their positions.
#pragma once

#include "../common/launch.h"
#include "../common/types.h"
#include "norm.h"

namespace cnnkernels::norm {

inline constexpr int kThreads = 256;

struct Tiling {
  std::int64_t channels, groups, positions;
  std::int64_t columns;                            // positions in a row: what lies in memory without a gap
  std::int64_t row_step, column_step, group_step;  // in elements
  std::int64_t length, parts;                      // a part is so many positions
  std::int64_t group_blocks, beside;               // a block has so many groups, a power of two
  std::int64_t adjacent;                           // whether channels are

  Tiling(const Shape& shape, int vector) : channels(shape.channels), adjacent(shape.inner == 1) {
    groups = adjacent ? channels / vector : channels;
    columns = adjacent ? 1 : shape.inner / vector;
    positions = shape.outer * columns;
    row_step = channels * shape.inner;
    column_step = vector;
    group_step = adjacent ? vector : shape.inner;
    // 32 lanes beside each other read whole lines; more where there are few positions for the threads.
    beside = 1;
    while (beside < kThreads && beside < groups &&
           ((adjacent && beside < 32) || positions * beside <= kThreads / 2))
      beside *= 2;
    group_blocks = ceil_div(groups, beside);
    // Some blocks for each multiprocessor; sums of few enough elements a thread that they do not lose bits,
    // of enough that adding the parts is little beside.
    constexpr std::int64_t kBlocks = 1024, kFewest = 8, kMost = 128;
    const std::int64_t rounds = ceil_div(positions, together());
    const std::int64_t wanted = ceil_div(rounds * group_blocks, kBlocks);
    length = together() * (wanted < kFewest ? kFewest : wanted > kMost ? kMost : wanted);
    parts = ceil_div(positions, length);
  }

  // Positions that a block takes at a time.
  CNN_HOST_DEVICE std::int64_t together() const { return kThreads / beside; }

  Launch launch(std::uintptr_t stream) const {
    if (group_blocks * parts > INT32_MAX) throw_invalid_argument("batch_norm: more than 2^31 - 1 blocks");
    return {dim3(static_cast<unsigned>(group_blocks * parts)), dim3(kThreads), 0, stream};
  }
};

// The positions of one thread, from the first to the last.
struct Owned {
  std::int64_t part, group, offset, column;
  std::int32_t count;   // positions from here on
  std::int32_t thread;  // that of the block which has the same group and its first position, plus
  std::int32_t place;   // so many times `beside`

  CNN_DEVICE explicit Owned(const Tiling& t) {
    const auto id = static_cast<std::int32_t>(threadIdx.x), beside = static_cast<std::int32_t>(t.beside);
    const std::int32_t together = kThreads / beside;
    thread = t.adjacent != 0 ? id % beside : id / together;
    place = t.adjacent != 0 ? id / beside : id % together;
    const auto block = static_cast<std::uint32_t>(blockIdx.x),
               blocks = static_cast<std::uint32_t>(t.group_blocks);
    group = std::int64_t(block % blocks) * beside + thread;
    part = block / blocks;
    const std::int64_t first = part * t.length + place, left = t.positions - part * t.length;
    const std::int64_t some = (left < t.length ? left : t.length) - place;
    count = group < t.groups && some > 0 ? static_cast<std::int32_t>((some - 1) / together) + 1 : 0;
    const std::int64_t row = first / t.columns;
    column = first - row * t.columns;
    offset = row * t.row_step + column * t.column_step + group * t.group_step;
  }

  // Calls body(offset) for each of its positions, with the loads of several on their way.
  template <int kTogether, class Body>
  CNN_DEVICE void each(const Tiling& t, Body&& body) {
    const std::int64_t rows = t.together() / t.columns, columns = t.together() - rows * t.columns;
    const std::int64_t step = rows * t.row_step + columns * t.column_step;
    const std::int64_t wrap = t.row_step - t.columns * t.column_step;
#pragma unroll kTogether
    for (std::int32_t i = 0; i < count; ++i) {
      body(offset);
      offset += step, column += columns;
      if (column >= t.columns) column -= t.columns, offset += wrap;
    }
  }

  // The channel of its j-th lane.
  CNN_DEVICE std::int64_t channel(const Tiling& t, int j) const {
    return t.adjacent != 0 ? group * t.column_step + j : group;
  }
};

// Elements that one access moves. fp64, which no network is trained in, has one way less.
template <class T>
inline constexpr int kVector = sizeof(T) == 8 ? 1 : 16 / sizeof(T);

// Whether rows are whole vectors.
template <class T>
bool in_vectors(const Shape& shape) {
  return (shape.inner == 1 ? shape.channels : shape.inner) % kVector<T> == 0;
}

// Calls start(tiling, V) with V elements of T in a vector, a constant, where all images allow it and
// `wanted`, else 1.
template <class T, class Start, class... Images>
void tiled(const Shape& shape, bool wanted, const Start& start, const Images*... images) {
  if constexpr (kVector<T> > 1) {
    const auto bits = (std::uintptr_t(0) | ... | reinterpret_cast<std::uintptr_t>(images));
    if (wanted && in_vectors<T>(shape) && bits % 16 == 0)
      return start(Tiling(shape, kVector<T>), std::integral_constant<int, kVector<T>>{});
  }
  start(Tiling(shape, 1), std::integral_constant<int, 1>{});
}

}  // namespace cnnkernels::norm
