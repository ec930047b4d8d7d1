// Where a consumer's sums go: what the epilogue makes of them in fp32, one rounding, and by way of shared
// memory to the result, a block of 64 rows by 128 bytes at a time. TMA stores a block while the next is
// written; meanwhile the producer fills the ring for the next tile.
#pragma once

#include <cstring>

#include "../../common/vector.h"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/tma.cuh"
#include "../epilogue.cuh"
#include "config.cuh"

namespace cnnkernels::conv::sm90 {

template <class T>
CNN_DEVICE std::uint32_t pair(float low, float high) {
  return narrow<T>(low).bits | static_cast<std::uint32_t>(narrow<T>(high).bits) << 16;
}

// A warpgroup's sums of 64 rows and 128 bytes' worth of columns, the first of them sums[0], into a swizzled
// block. Thread t has rows 16 * (t / 32) + t % 32 / 4 and 8 below (wgmma.cuh).
template <class Out>
CNN_DEVICE void write_block(unsigned char* block, const float* sums) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, lane = thread % 32,
            warp_row = thread / 32 * 16;
  constexpr int kGroups = kRowBytes / sizeof(Out) / 8;  // of 8 columns, 4 sums each
  if constexpr (sizeof(Out) == 2) {
#pragma unroll
    for (int j = 0; j < kGroups;
         j += 2) {  // four 8 x 8 matrices: upper and lower rows, left and right columns
      std::uint32_t pairs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) pairs[i] = pair<Out>(sums[4 * j + 2 * i], sums[4 * j + 2 * i + 1]);
      const int row = warp_row + lane % 16, chunk = j + lane / 16;
      stmatrix_x4(block + swizzled(row * kRowBytes + chunk * 16, kSwizzle), pairs);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + lane / 4 + 8 * half;
        const Vector<float, 2> value{sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]};
        store(reinterpret_cast<float*>(block + swizzled(row * kRowBytes + j * 32 + lane % 4 * 8, kSwizzle)),
              value);
      }
    }
  }
}

template <class C>
class Store {
 public:
  CNN_DEVICE Store(const typename C::Arguments& a, unsigned char* staging, int consumer)
      : a_(a), staging_(staging + consumer * kStagingBlocks * kBlockBytes), consumer_(consumer) {}

  CNN_DEVICE void tile(const WorkTile& work, typename C::Sums& sums) {
    if constexpr (C::kWeight) {
      if (a_.in_parts) return blocks<float>(work, sums);
    }
    if constexpr (C::kDirection == Direction::forward) {
      if (scales())
        scale(work, sums);
      else if (a_.epilogue.bias != nullptr)
        add_bias(work, sums);
      if (activates())
        activate_all(sums);
      else if (by_output(a_.epilogue))
        return finished_blocks(work, sums);
    }
    if constexpr (kTransposed) {
      if (by_output(a_.epilogue) || a_.epilogue.bias != nullptr || scales())
        return finished_blocks(work, sums);
    }
    blocks<typename C::T>(work, sums);
  }

  // Shared memory may go only when TMA has read it.
  CNN_DEVICE void finish() const {
    if (leads()) bulk_wait_read<0>();
  }

 private:
  static constexpr bool kTransposed = C::kDirection == Direction::backward_input;

  CNN_DEVICE bool leads() const { return threadIdx.x % kWarpgroup == 0; }
  CNN_DEVICE void sync() const { named_barrier_sync(1 + consumer_, kWarpgroup); }

  template <class Out>
  CNN_DEVICE void blocks(const WorkTile& work, const typename C::Sums& sums) {
    constexpr int kWidth = kRowBytes / sizeof(Out);
#pragma unroll
    for (int m = 0; m < C::kM; ++m) {
#pragma unroll
      for (int j = 0; j < C::kN / kWidth; ++j) {
        const int row = work.first_row + first_row_of<C>(consumer_) + m * kBlock;
        const int column = work.first_column + first_column_of<C>(consumer_) + j * kWidth;
        if (outside(work, row, column)) continue;
        unsigned char* block = staging_ + next_ * kBlockBytes;
        next_ ^= 1;
        if (leads()) bulk_wait_read<1>();  // TMA is done with this block, if not with the other
        sync();
        write_block<Out>(block, &sums[m][j * kWidth / 2]);
        fence_proxy_async();
        sync();
        if (kTransposed && !a_.store_by_tma) {
          store_by_strides<Out>(work, block, row, column);
        } else if (leads()) {
          start(work, block, row, column);
          bulk_commit();
        }
      }
    }
  }

  CNN_DEVICE bool outside(const WorkTile& work, int row, int column) const {
    if constexpr (C::kWeight) {
      const int box = column / kBlock, tap = box / a_.chunks;
      const Phase& phase = a_.phase[0];
      return row >= a_.rows || tap >= phase.r.count * phase.s.count ||
             (box - tap * a_.chunks) * kBlock + column % kBlock >= a_.columns;
    } else {
      return row >= a_.phase[work.phase].pixels || column >= a_.columns;
    }
  }

  // One number a filter, of the thread's two neighbouring columns of the eight from `column` on; `otherwise`
  // where there is none.
  CNN_DEVICE Vector<float, 2> numbers(const WorkTile& work, const void* all, int column,
                                      float otherwise) const {
    Vector<float, 2> found{otherwise, otherwise};
    if (all == nullptr) return found;
    const auto* of_group = static_cast<const typename C::T*>(all) + work.group * a_.columns;
    const int mine = column + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (mine + i < a_.columns) found[i] = widen(of_group[mine + i]);
    return found;
  }

  CNN_DEVICE bool scales() const { return a_.epilogue.scale != nullptr || a_.epilogue.shift != nullptr; }

  // Sums in registers plus the bias. Numbers of eight groups of columns are under way together.
  CNN_DEVICE void add_bias(const WorkTile& work, typename C::Sums& sums) const {
    constexpr int kAhead = C::kN / 8 < 8 ? C::kN / 8 : 8;
    const int first = work.first_column + first_column_of<C>(consumer_);
#pragma unroll
    for (int j = 0; j < C::kN / 8; j += kAhead) {
      Vector<float, 2> bias[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) bias[i] = numbers(work, a_.epilogue.bias, first + 8 * (j + i), 0);
#pragma unroll
      for (int m = 0; m < C::kM; ++m) {
#pragma unroll
        for (int v = 0; v < 4 * kAhead; ++v) sums[m][4 * j + v] += bias[v / 4][v % 2];
      }
    }
  }

  // scale (sum + bias) + shift, in registers.
  CNN_DEVICE void scale(const WorkTile& work, typename C::Sums& sums) const {
    const int first = work.first_column + first_column_of<C>(consumer_);
#pragma unroll
    for (int j = 0; j < C::kN / 8; ++j) {
      const auto bias = numbers(work, a_.epilogue.bias, first + 8 * j, 0);
      const auto scale = numbers(work, a_.epilogue.scale, first + 8 * j, 1);
      const auto shift = numbers(work, a_.epilogue.shift, first + 8 * j, 0);
#pragma unroll
      for (int m = 0; m < C::kM; ++m) {
#pragma unroll
        for (int v = 0; v < 4; ++v)
          sums[m][4 * j + v] = multiply_add(scale[v % 2], sums[m][4 * j + v] + bias[v % 2], shift[v % 2]);
      }
    }
  }

  CNN_DEVICE static constexpr bool compares(Activation which) {
    return which == Activation::relu || which == Activation::relu6 || which == Activation::leaky_relu;
  }

  // An activation of few instructions, with no residual to be added before it, is applied to sums in
  // registers.
  CNN_DEVICE bool activates() const {
    return a_.epilogue.residual == nullptr && compares(a_.epilogue.activation);
  }

  CNN_DEVICE void activate_all(typename C::Sums& sums) const {
    with_activation(a_.epilogue.activation, [&](auto which) {
      if constexpr (compares(decltype(which)::value)) {
#pragma unroll
        for (int m = 0; m < C::kM; ++m) {
#pragma unroll
          for (int v = 0; v < C::kN / 2; ++v)
            sums[m][v] = activate(decltype(which)::value, sums[m][v], static_cast<float>(a_.epilogue.slope));
        }
      }
    });
  }

  // With a residual or another activation, and of backward_input with any epilogue: sums go to shared memory
  // in fp32, and each thread makes 16 bytes of outputs of them at a time, in a loop of few instructions (what
  // is done to registers is written out for each).
  CNN_DEVICE void finished_blocks(const WorkTile& work, const typename C::Sums& sums) const {
    using T = typename C::T;
    constexpr int kWidth = kRowBytes / sizeof(float), kAcross = C::kN / kWidth;
    constexpr int kValues = 16 / sizeof(T), kChunks = kWidth / kValues;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, chunk = thread % kChunks;
    const std::int64_t first = work.group * a_.columns + chunk * kValues;
    const Finish<T> finish{static_cast<const T*>(a_.epilogue.residual), a_.epilogue.activation,
                           static_cast<float>(a_.epilogue.slope)};
#pragma unroll 1
    for (int which = 0; which < C::kM * kAcross; ++which) {
      const int row = work.first_row + first_row_of<C>(consumer_) + which / kAcross * kBlock;
      const int column = work.first_column + first_column_of<C>(consumer_) + which % kAcross * kWidth;
      if (outside(work, row, column)) continue;
      sync();  // everyone is done with the block before
#pragma unroll
      for (int block = 0; block < C::kM * kAcross; ++block) {
        if (block == which)
          write_block<float>(staging_, &sums[block / kAcross][block % kAcross * kWidth / 2]);
      }
      sync();
      if (column + chunk * kValues >= a_.columns) continue;
      const int pixels = a_.phase[kTransposed ? work.phase : 0].pixels;
      const Numbers<kValues> numbers(a_.epilogue, first + column);
#pragma unroll 1
      for (int i = thread / kChunks; i < kBlock && row + i < pixels; i += kWarpgroup / kChunks) {
        Vector<float, kValues> run;
#pragma unroll
        for (int v = 0; v < kValues; v += 4) {
          const int byte = i * kRowBytes + (chunk * kValues + v) * static_cast<int>(sizeof(float));
          const auto four = load<4>(reinterpret_cast<const float*>(staging_ + swizzled(byte, kSwizzle)));
#pragma unroll
          for (int k = 0; k < 4; ++k) run[v + k] = four[k];
        }
        if constexpr (kTransposed) numbers.apply_to(run);
        const std::int64_t offset = pixel(work, row + i) + first + column;
        store(static_cast<T*>(a_.data) + offset, finish(run, offset));
      }
    }
  }

  CNN_DEVICE void start(const WorkTile& work, const unsigned char* block, int row, int column) const {
    if constexpr (C::kWeight) {
      const int box = column / kBlock, tap = box / a_.chunks;
      const int channel = (box - tap * a_.chunks) * kBlock + column % kBlock;
      tma_store(a_.result, block, {channel, tap, row, work.group, work.part});
    } else {
      tma_store(a_.result, block, {column, work.group, row});
    }
  }

  // Bias, scale and shift of a run of neighbouring columns, where the sums in registers were left as they
  // are.
  template <int N>
  struct Numbers {
    float bias[N], scale[N], shift[N];
    bool scales;

    CNN_DEVICE Numbers(const Epilogue& epilogue, std::int64_t column)
        : scales(epilogue.scale != nullptr || epilogue.shift != nullptr) {
      const auto number = [&](const void* all, int i, float otherwise) {
        return all != nullptr ? widen(static_cast<const typename C::T*>(all)[column + i]) : otherwise;
      };
#pragma unroll
      for (int i = 0; i < N; ++i) {
        bias[i] = number(epilogue.bias, i, 0);
        scale[i] = number(epilogue.scale, i, 1);
        shift[i] = number(epilogue.shift, i, 0);
      }
    }
    CNN_DEVICE void apply_to(Vector<float, N>& run) const {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        run[i] += bias[i];
        if (scales) run[i] = multiply_add(scale[i], run[i], shift[i]);
      }
    }
  };

  // Where a pixel of the result begins, counted from a_.data.
  CNN_DEVICE std::int64_t pixel(const WorkTile& work, int row) const {
    if constexpr (kTransposed) {
      const Phase& phase = a_.phase[work.phase];
      std::uint32_t q, p;
      const std::uint32_t rest = phase.width.divmod(row, q), n = phase.height.divmod(rest, p);
      return phase.first + q * a_.result_strides.q + p * a_.result_strides.p + n * a_.result_strides.n;
    } else {
      return row * a_.result_strides.q;
    }
  }

  // Pixels of a phase lie a stride apart, which no tensor map of a linear row of them describes: each thread
  // stores 16 bytes of a row.
  template <class Out>
  CNN_DEVICE void store_by_strides(const WorkTile& work, const unsigned char* block, int row,
                                   int column) const {
    constexpr int kChunks = kRowBytes / 16, kValues = 16 / sizeof(Out);
    const int pixels = a_.phase[work.phase].pixels;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, chunk = thread % kChunks;
    if (column + chunk * kValues >= a_.columns) return;
    Out* data = static_cast<Out*>(a_.data) + work.group * a_.columns + column + chunk * kValues;
#pragma unroll 1
    for (int i = thread / kChunks; i < kBlock && row + i < pixels; i += kWarpgroup / kChunks) {
      const auto* from = reinterpret_cast<const Out*>(block + swizzled(i * kRowBytes + chunk * 16, kSwizzle));
      store(data + pixel(work, row + i), load<kValues>(from));
    }
  }

  const typename C::Arguments& a_;
  unsigned char* staging_;
  const int consumer_;
  int next_ = 0;
};

}  // namespace cnnkernels::conv::sm90
