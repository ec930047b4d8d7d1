// Brings an operand's tiles from global to shared memory, one stage of the reduction after another: 16 bytes
// at a time by asynchronous copies, or through registers where bytes are not aligned or run along the other
// axis.
#pragma once

#include "../ptx/cp_async.cuh"
#include "bytes.cuh"
#include "product.h"
#include "../common/vector.h"

namespace cnnkernels::int8 {

// A row that lies outside every image, whatever is added to it.
inline constexpr std::int32_t kOutside = -(std::int32_t(1) << 30);

// A tile of `rows` x 64 bytes in shared memory. ldmatrix reads 8 neighbouring rows of one 16-byte chunk, and
// two rows fill the 32 banks: every second row moves its chunks on, by XOR.
CNN_DEVICE int place_in_tile(int row, int chunk) {
  return row * kStageBytes + ((chunk ^ (row >> 1 & 3)) * kVectorBytes);
}

// A place on the reduction, in units.
struct DepthCursor {
  std::uint32_t unit, across, down;

  CNN_DEVICE DepthCursor(const Depth& depth, std::uint32_t index) {
    down = depth.across.divmod(depth.units.divmod(index, unit), across);
  }
  CNN_DEVICE void step(const Depth& depth, std::uint32_t units) {
    unit += units;
    if (unit < depth.units.divisor) return;
    across += depth.units.divmod(unit, unit);
    down += depth.across.divmod(across, across);
  }
  CNN_DEVICE bool ended(const Depth& depth) const { return down >= depth.down; }
};

// Where a row or column begins.
struct alignas(16) Side {
  const std::uint8_t* data;
  std::int32_t h, x;
};

CNN_DEVICE Side side_at(const Operand& operand, std::int64_t group, std::int64_t index) {
  const std::uint8_t* data = operand.data + group * operand.group_stride;
  if (index >= operand.extent) return {data, kOutside, 0};
  std::uint32_t q, p;
  const std::uint32_t n = operand.p.divmod(operand.q.divmod(static_cast<std::uint32_t>(index), q), p);
  return {data + operand.origin + q * operand.offset_q + p * operand.offset_p + n * operand.offset_n,
          operand.origin_h + static_cast<std::int32_t>(p) * operand.h_p,
          operand.origin_x + static_cast<std::int32_t>(q) * operand.x_q};
}

// How far ahead of it a depth lies, `bytes` into its run.
struct Ahead {
  std::int64_t offset;
  std::int32_t h, x;
};

CNN_DEVICE Ahead ahead(const Operand& operand, const DepthCursor& at, std::int32_t bytes) {
  return {bytes * operand.depth_stride + at.across * operand.offset_across + at.down * operand.offset_down,
          static_cast<std::int32_t>(at.down) * operand.h_down,
          bytes + static_cast<std::int32_t>(at.across) * operand.x_across};
}

CNN_DEVICE bool row_inside(const Operand& operand, const Side& side, const Ahead& ahead) {
  return static_cast<std::uint32_t>(side.h + ahead.h) < static_cast<std::uint32_t>(operand.height);
}

// Access::vectors. A thread copies the same 16-byte column of several rows of every tile.
template <int Extent, bool kWindows>
class VectorLoader {
 public:
  static constexpr int kTableBytes = 0;

  CNN_DEVICE VectorLoader(const Operand& operand, const Depth& depth, std::int64_t group,
                          std::int64_t first_side, std::uint32_t first_unit, unsigned char*)
      : operand_(operand), depth_(depth), cursor_(depth, first_unit + column()) {
#pragma unroll
    for (int i = 0; i < kOwned; ++i) side_[i] = side_at(operand, group, first_side + row(i));
  }

  // Starts the next tile on its way.
  CNN_DEVICE void start(std::uint8_t* tile) {
    const Ahead next = ahead(operand_, cursor_, static_cast<std::int32_t>(cursor_.unit) * kVectorBytes);
    const bool live = !cursor_.ended(depth_);
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      std::uint8_t* to = tile + place_in_tile(row(0), column()) + i * (kThreads * kVectorBytes);
      const bool valid = live && inside(side_[i], next);
      if (!kWindows || valid || operand_.fill == 0) {
        cp_async<kVectorBytes>(to, valid ? side_[i].data + next.offset : operand_.data, valid);
      } else {  // where the image ends its zero point begins; whoever reads it waits for all threads' copies
        const std::uint32_t fill = operand_.fill;
        store(reinterpret_cast<std::uint32_t*>(to), Vector<std::uint32_t, 4>{fill, fill, fill, fill});
      }
    }
    cursor_.step(depth_, kStageBytes / kVectorBytes);
  }

  // Both were done by start().
  CNN_DEVICE void finish(std::uint8_t*) {}

 private:
  static constexpr int kColumns = kStageBytes / kVectorBytes, kOwned = Extent * kColumns / kThreads;
  static_assert(kThreads / kColumns % 8 == 0);  // rows a whole period of the permutation apart

  CNN_DEVICE static int column() { return static_cast<int>(threadIdx.x) % kColumns; }
  CNN_DEVICE static int row(int i) { return (static_cast<int>(threadIdx.x) + i * kThreads) / kColumns; }

  CNN_DEVICE bool inside(const Side& side, const Ahead& next) const {
    if constexpr (!kWindows) return side.h == 0;
    return row_inside(operand_, side, next) &&
           static_cast<std::uint32_t>(side.x + next.x) < static_cast<std::uint32_t>(operand_.row_bytes);
  }

  const Operand& operand_;
  const Depth& depth_;
  DepthCursor cursor_;
  Side side_[kOwned];
};

// The other accesses. A thread fills blocks of 4 sides x 4 bytes of the reduction; what it reads it holds in
// registers until finish(), so that loads have the arithmetic's time to arrive. kSingly: byte by byte, of
// tensors whose last words hold what is not theirs.
template <int Extent, bool kSingly>
class WordLoader {
 public:
  static constexpr int kTableBytes = Extent * sizeof(Side);  // of shared memory: where each side begins

  // Usable after a barrier.
  CNN_DEVICE WordLoader(const Operand& operand, const Depth& depth, std::int64_t group,
                        std::int64_t first_side, std::uint32_t first_unit, unsigned char* table)
      : operand_(operand),
        depth_(depth),
        corner_(operand.data + group * operand.group_stride + first_side * operand.offset_n),
        sides_left_(operand.extent - first_side),
        sides_(reinterpret_cast<Side*>(table)),
        word_(along_depth() ? thread() % kWords : thread() / kQuads),
        cursor_(depth, first_unit + word_) {
    if (thread() < Extent) sides_[thread()] = side_at(operand, group, first_side + thread());
  }

  CNN_DEVICE void start(std::uint8_t*) {
    const std::int32_t bytes = static_cast<std::int32_t>(cursor_.unit) * kWordBytes;
    const int left =
        cursor_.ended(depth_) ? 0 : static_cast<int>(min(depth_.run_bytes - bytes, std::int64_t(4)));
    const Ahead next = ahead(operand_, cursor_, bytes);
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      if (along_depth()) {
#pragma unroll
        for (int j = 0; j < 4; ++j) held_[i][j] = from_window(sides_[row(i) + j], next, left);
      } else {
        from_matrix(row(i), next, left, held_[i]);
      }
    }
    cursor_.step(depth_, kWords);
  }

  CNN_DEVICE void finish(std::uint8_t* tile) {
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      std::uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) words[j] = assemble(held_[i][j], operand_.fill);
      if (operand_.access == Access::along_side) transpose(words);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        std::uint8_t* to = tile + place_in_tile(row(i) + j, word_ / 4) + word_ % 4 * kWordBytes;
        store(reinterpret_cast<std::uint32_t*>(to), Vector<std::uint32_t, 1>{words[j]});
      }
    }
  }

 private:
  static constexpr int kWords = kStageBytes / kWordBytes, kQuads = kThreads / kWords;
  static constexpr int kOwned = Extent / 4 / kQuads;
  static_assert(Extent <= kThreads);

  CNN_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
  CNN_DEVICE bool along_depth() const {
    return operand_.access == Access::along_depth || operand_.access == Access::vectors;
  }
  // The first of a block's four rows. Neighbouring threads read neighbouring bytes: words of a row, or eight
  // of a depth.
  CNN_DEVICE int row(int i) const {
    return 4 * ((along_depth() ? thread() / kWords : thread() % kQuads) + i * kQuads);
  }

  CNN_DEVICE static Fetched read(const std::uint8_t* from, int first, int end) {
    return kSingly ? fetch_singly(from, first, end) : fetch(from, first, end);
  }

  // `left` bytes of the run from here on, of them those inside the image.
  CNN_DEVICE Fetched from_window(const Side& side, const Ahead& next, int left) const {
    const std::int32_t x = side.x + next.x;
    const int first = max(0, -x);
    const int end = row_inside(operand_, side, next) ? min(left, operand_.row_bytes - x) : 0;
    return read(side.data + next.offset, first, end);
  }

  // Four depths by four sides of a matrix.
  CNN_DEVICE void from_matrix(int first, const Ahead& next, int left, Fetched (&held)[4]) const {
    const std::uint8_t* corner = corner_ + first * operand_.offset_n + next.offset;
    const auto sides = static_cast<int>(max(min(sides_left_ - first, std::int64_t(4)), std::int64_t(0)));
    if (operand_.access == Access::along_side) {
#pragma unroll
      for (int j = 0; j < 4; ++j) held[j] = read(corner + j * operand_.depth_stride, 0, j < left ? sides : 0);
      return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      std::uint32_t word = 0;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (j < sides && k < left)
          word |= std::uint32_t(corner[j * operand_.offset_n + k * operand_.depth_stride]) << (8 * k);
      }
      held[j] = {word, 0, 4 << 8};
    }
  }

  const Operand& operand_;
  const Depth& depth_;
  const std::uint8_t* corner_;  // of a matrix
  std::int64_t sides_left_;
  Side* sides_;
  int word_;
  DepthCursor cursor_;
  Fetched held_[kOwned][4];
};

}  // namespace cnnkernels::int8
