// Sums over a channel, in two levels of fixed order: the threads of a block merge what they have of the same
// channel in a tree and write it as a part; then parts are added.
#pragma once

#include "numbers.cuh"

namespace cnnkernels::norm {

// Leaves in the threads of place 0 what all threads of their groups have together: of each lane's channel, or
// in lane 0 that of the one channel.
template <class Value, int V>
CNN_DEVICE void merge_block(const Tiling& t, const Owned& own, Value (&value)[V]) {
  CNN_SHARED(Value, shared, [V][kThreads]);
  const auto beside = static_cast<std::int32_t>(t.beside);
  const std::int32_t slot = own.place * beside + own.thread;
#pragma unroll
  for (int j = 0; j < V; ++j) shared[j][slot] = value[j];
  __syncthreads();
  for (std::int32_t half = kThreads / beside / 2; half > 0; half /= 2) {
    if (own.place < half) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        value[j].merge(shared[j][slot + half * beside]);
        shared[j][slot] = value[j];
      }
    }
    __syncthreads();
  }
  if (t.adjacent != 0) return;
#pragma unroll
  for (int half = V / 2; half > 0; half /= 2) {
#pragma unroll
    for (int j = 0; j < half; ++j) value[j].merge(value[j + half]);
  }
}

// The second level: a block has kChannels channels, and kSlices threads for each, which take parts in turn.
inline constexpr int kChannels = 4, kSlices = kThreads / kChannels;

// What all slices of a channel have together, in each of them.
template <class A>
CNN_DEVICE A add_slices(A value) {
  CNN_SHARED(A, shared, [kThreads]);
  const auto id = static_cast<int>(threadIdx.x);
  __syncthreads();
  shared[id] = value;
  __syncthreads();
#pragma unroll
  for (int half = kThreads / 2; half >= kChannels; half /= 2) {
    if (id < half) shared[id] += shared[id + half];
    __syncthreads();
  }
  return shared[id % kChannels];
}

inline Launch launch_channels(std::int64_t channels, std::uintptr_t stream) {
  return {dim3(static_cast<unsigned>(ceil_div(channels, kChannels))), dim3(kThreads), 0, stream};
}

}  // namespace cnnkernels::norm
