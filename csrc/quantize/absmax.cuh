// The largest magnitude of each group, and the scale that follows from it. A maximum does not depend on the
// order of its operands, so integer atomics on the bits of magnitudes, which order like the magnitudes, keep
// it reproducible.
#pragma once

#include "groups.cuh"

namespace cnnkernels::quantize {

inline constexpr int kThreads = 256;

// The largest magnitude in a chunk's span, and before; a NaN does not count.
template <class T>
CNN_DEVICE float larger(float most, const T (&x)[kChunk], const Span& span, std::int64_t first) {
  if (first >= span.begin && first + kChunk <= span.end) {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) most = fmaxf(most, fabsf(value_of(x[j])));
  } else {
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
      if (first + j >= span.begin && first + j < span.end) most = fmaxf(most, fabsf(value_of(x[j])));
    }
  }
  return most;
}

// The largest of a team of threads, to all of them. Teams are powers of two and stand beside each other in a
// block.
CNN_DEVICE float largest_of_team(float most, int team) {
  CNN_SHARED(float, warps, [32]);
  const auto within = [](float value, int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
  };
  most = within(most, team < 32 ? team : 32);
  if (team <= 32) return most;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) warps[warp] = most;
  __syncthreads();
  const int each = team / 32;
  return within(warps[warp / each * each + lane % each], 32);
}

// Where blocks leave the maxima of the groups (as bits) and count themselves: cleared before.
struct Maxima {
  std::uint32_t *of, *blocks;
};

// The last block to come here turns the maxima into scales.
CNN_DEVICE void write_scales(const Maxima& maxima, std::int32_t groups, float* __restrict__ scales) {
  CNN_SHARED(bool, is_last, [1]);
  __syncthreads();  // this block's maxima are in memory
  if (threadIdx.x == 0) {
    __threadfence();
    is_last[0] = atomicAdd(maxima.blocks, 1u) + 1 == gridDim.x;
  }
  __syncthreads();
  if (!is_last[0]) return;
  __threadfence();
  for (auto group = static_cast<std::int32_t>(threadIdx.x); group < groups; group += kThreads) {
    scales[group] = dynamic_scale(__uint_as_float(atomicMax(maxima.of + group, 0u)));
  }
}

// Groups of long runs of memory, cut into pieces of several chunks a thread: a block for each piece.
inline constexpr int kPieceChunks = 8 * kThreads;

template <class T>
CNN_KERNEL(kThreads, 4)
absmax_runs_kernel(std::int64_t run, std::int32_t groups, const FastDivide by_pieces,
                   const FastDivide by_groups, std::int64_t count, int head, const T* __restrict__ input,
                   const Maxima maxima, float* __restrict__ scales) {
  std::uint32_t piece, group;
  const std::uint32_t segment = by_pieces.divmod(blockIdx.x, piece);
  by_groups.divmod(segment, group);
  const Span span{segment * run, segment * run + run};
  const std::int64_t chunk = (span.begin + head) / kChunk + std::int64_t(piece) * kPieceChunks + threadIdx.x;

  float most = 0;
#pragma unroll 2
  for (int k = 0; k < kPieceChunks; k += kThreads) {
    const std::int64_t first = (chunk + k) * kChunk - head;
    if (first >= span.end) break;
    Kept<T> x[kChunk];
    read_chunk(input, count, first, x);
    most = larger(most, x, span, first);
  }
  most = largest_of_team(most, kThreads);
  if (threadIdx.x == 0) atomicMax(maxima.of + group, __float_as_uint(most));
  write_scales(maxima, groups, scales);
}

// Groups of short runs: a thread takes every `step`-th chunk, where the groups have come round, so that each
// of its 16 places is of the same group always.
inline constexpr std::int32_t kTable = 4096;  // groups whose maxima a block collects before it passes them on

template <class T>
CNN_KERNEL(kThreads, 3)
absmax_columns_kernel(const Groups groups, std::int64_t step, std::int64_t count, int head,
                      const T* __restrict__ input, const Maxima maxima, float* __restrict__ scales) {
  CNN_SHARED(std::uint32_t, table, [kTable]);
  const bool tabled = groups.count <= kTable;
  if (tabled) {
    for (auto group = static_cast<std::int32_t>(threadIdx.x); group < groups.count; group += kThreads)
      table[group] = 0;
    __syncthreads();
  }

  const std::int64_t chunk = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (chunk < step && chunk * kChunk - head < count) {
    float most[kChunk] = {};
    for (std::int64_t first = chunk * kChunk - head; first < count; first += step * kChunk) {
      Kept<T> x[kChunk];
      read_chunk(input, count, first, x);
#pragma unroll
      for (int j = 0; j < kChunk; ++j) most[j] = fmaxf(most[j], fabsf(value_of(x[j])));
    }
    std::uint32_t* const to = tabled ? table : maxima.of;
    auto at = groups.at(chunk * kChunk - head);
    float largest = most[0];
#pragma unroll
    for (int j = 1; j < kChunk; ++j) {
      const std::int32_t group = at.group;
      if (groups.enters(at, j)) {
        atomicMax(to + group, __float_as_uint(largest));
        largest = 0;
      }
      largest = fmaxf(largest, most[j]);
    }
    atomicMax(to + at.group, __float_as_uint(largest));
  }

  if (tabled) {
    __syncthreads();
    for (auto group = static_cast<std::int32_t>(threadIdx.x); group < groups.count; group += kThreads) {
      if (table[group] != 0) atomicMax(maxima.of + group, table[group]);
    }
  }
  write_scales(maxima, groups.count, scales);
}

}  // namespace cnnkernels::quantize
