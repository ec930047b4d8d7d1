// The depthwise half: a thread makes a chunk of channels of kStrip pixels. Each sum is one chain of fused
// multiply-adds over the taps in their order, whoever reads the input, so its bits never change.
#pragma once

#include "../common/types.h"
#include "shared_tile.cuh"

namespace cnnkernels::depthwise_separable_conv {

CNN_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
CNN_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// The weights of a stage's channels, [tap][channel], widened once: all pixels of the tile use them. What is
// read together, a 16-byte piece of each chunk, lies together.
template <class T, int Threads>
class DepthwiseWeights {
 public:
  using A = Accumulator<T>;
  static constexpr int kChannels = SharedTile<T>::kDepth, kChunk = SharedTile<T>::kChunk;
  static constexpr int kPiece = kChunkBytes / sizeof(A);
  static constexpr int kBytes = kTaps * kChannels * static_cast<int>(sizeof(A));

  // Those of the channels from `channel` and of the group of taps from `first_tap`. load() brings the first
  // few to registers, store() puts them, and what did not fit registers, into shared memory.
  CNN_DEVICE void load(const Pair& pair, int channel, int first_tap) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) held_[i] = weight(pair, channel, first_tap, i);
  }
  CNN_DEVICE void store(const Pair& pair, A* shared, int channel, int first_tap) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) put(pair, shared, i, held_[i]);
    for (int i = kHeld; i * Threads < kChannels * pair.group_taps; ++i)
      put(pair, shared, i, weight(pair, channel, first_tap, i));
  }

  // A tap's weights of a chunk of channels.
  CNN_DEVICE static void read(const A* shared, int tap, int chunk, A (&weights)[kChunk]) {
#pragma unroll
    for (int e = 0; e < kChunk; e += kPiece) {
      const auto piece = cnnkernels::load<kPiece>(shared + place(tap, chunk, e));
#pragma unroll
      for (int i = 0; i < kPiece; ++i) weights[e + i] = piece[i];
    }
  }

 private:
  static constexpr int kHeld = (9 * kChannels + Threads - 1) / Threads;  // all of a 3 x 3 window

  CNN_DEVICE static int place(int tap, int chunk, int e) {
    return tap * kChannels + e / kPiece * (kChunks * kPiece) + chunk * kPiece + e % kPiece;
  }
  CNN_DEVICE static std::uint32_t index(int i) {
    return threadIdx.x + static_cast<std::uint32_t>(i * Threads);
  }

  // Neighbouring threads read neighbouring taps of one channel, which lie together in memory.
  CNN_DEVICE static A weight(const Pair& pair, int channel, int first_tap, int i) {
    std::uint32_t tap;
    const int m = channel + static_cast<int>(pair.by_group_taps.divmod(index(i), tap));
    const int t = first_tap + static_cast<int>(tap), taps = pair.r * pair.s;
    if (index(i) >= static_cast<std::uint32_t>(kChannels * pair.group_taps) || m >= pair.channels ||
        t >= taps)
      return A(0);
    return widen(static_cast<const T*>(pair.at.depthwise_weight)[std::int64_t(m) * taps + t]);
  }
  CNN_DEVICE static void put(const Pair& pair, A* shared, int i, A value) {
    if (index(i) >= static_cast<std::uint32_t>(kChannels * pair.group_taps)) return;
    std::uint32_t tap;
    const int m = static_cast<int>(pair.by_group_taps.divmod(index(i), tap));
    shared[place(static_cast<int>(tap), m / kChunk, m % kChunk)] = value;
  }

  A held_[kHeld];
};

template <class T, int Rows, Reader kReader>
class Depthwise {
 public:
  using A = Accumulator<T>;
  static constexpr int kThreads = Rows / kStrip * kChunks;
  static constexpr int kChunk = SharedTile<T>::kChunk, kChannels = SharedTile<T>::kDepth;
  using Weights = DepthwiseWeights<T, kThreads>;

  CNN_DEVICE Depthwise(const Pair& pair, std::uint32_t patch) : pair_(pair), patch_(patch) {
    const T* input = static_cast<const T*>(pair.at.input);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const Pixel pixel = pixel_at(pair, patch, row_of(i));
      h_[i] = pixel.exists ? pixel.p * pair.stride_h - pair.pad_h : kOutside;
      w_[i] = pixel.q * pair.stride_w - pair.pad_w;
      corner_[i] = input + pixel.n * pair.x.n + h_[i] * pair.x.h + w_[i] * pair.x.w;
    }
  }

  // Of this thread's pixels and chunk, the sums over all taps for the stage of channels from `channel`. All
  // threads of the block call it; `shared` holds the first group of weights, and the last when it returns.
  CNN_DEVICE void sum(A (&sums)[kStrip][kChunk], A* shared, int channel) {
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
#pragma unroll
      for (int e = 0; e < kChunk; ++e) sums[i][e] = A(0);
    }
    const bool exists = channel + chunk() * kChunk < pair_.channels;
    if constexpr (kReader == Reader::rows_of_three) {
      if (exists) sum_rows(sums, shared, channel);
    } else {
      const int taps = pair_.r * pair_.s;
      for (int tap = 0; tap < taps; tap += kTaps) {
        if (tap > 0) {
          Weights weights;
          weights.load(pair_, channel, tap);
          __syncthreads();  // everyone is done with the group before
          weights.store(pair_, shared, channel, tap);
          __syncthreads();
        }
        if (exists) sum_taps(sums, shared, channel, tap, min(taps - tap, kTaps));
      }
    }
  }

  // sums + bias is z; keep(row, chunk, z) takes it, rounded, for each pixel.
  template <class Keep>
  CNN_DEVICE void finish(const A (&sums)[kStrip][kChunk], int channel, Keep&& keep) const {
    const int first = channel + chunk() * kChunk;
    const T* bias = static_cast<const T*>(pair_.at.depthwise_bias);
    A more[kChunk];
#pragma unroll
    for (int e = 0; e < kChunk; ++e)
      more[e] = bias != nullptr && first + e < pair_.channels ? widen(bias[first + e]) : A(0);
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
      Vector<T, kChunk> z;
#pragma unroll
      for (int e = 0; e < kChunk; ++e) z[e] = narrow<T>(sums[i][e] + more[e]);
      keep(row_of(i), chunk(), z);
    }
  }

  // Writes a chunk of z where it belongs in global memory.
  CNN_DEVICE void save(int row, int channel, const Vector<T, kChunk>& z) const {
    const int first = channel + chunk() * kChunk;
    const Pixel pixel = pixel_at(pair_, patch_, row);
    if (!pixel.exists || first >= pair_.channels) return;
    T* to = static_cast<T*>(pair_.at.intermediate) + pixel.n * pair_.z.n + first * pair_.z.c +
            pixel.p * pair_.z.h + pixel.q * pair_.z.w;
    if constexpr (kVectors) {
      store(to, z);
    } else {
#pragma unroll
      for (int e = 0; e < kChunk; ++e)
        if (first + e < pair_.channels) to[e * pair_.z.c] = z[e];
    }
  }

  // This thread's rows of the tile, and its chunk of each.
  CNN_DEVICE static int row_of(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return kVectors ? thread / kChunks * kStrip + i : thread % kStrips + i * kStrips;
  }
  CNN_DEVICE static int chunk() {
    return static_cast<int>(threadIdx.x) % kThreads / (kVectors ? 1 : kStrips) % kChunks;
  }

 private:
  static constexpr bool kVectors = kReader != Reader::elements;
  static constexpr int kStrips = Rows / kStrip;
  // Where channels lie together, neighbouring threads take neighbouring chunks and a thread neighbouring
  // pixels of a row, so that one corner tells the others; else neighbouring threads take neighbouring pixels.
  static constexpr int kPixels = kVectors ? 1 : kStrip;

  CNN_DEVICE int row_in(int i) const { return h_[kVectors ? 0 : i]; }
  CNN_DEVICE int column_in(int i) const { return kVectors ? w_[0] + i * pair_.stride_w : w_[i]; }
  CNN_DEVICE const T* corner(int i) const {
    return kVectors ? corner_[0] + i * (pair_.stride_w * pair_.x.w) : corner_[i];
  }

  CNN_DEVICE bool inside(int h, int w) const {
    return static_cast<std::uint32_t>(h) < static_cast<std::uint32_t>(pair_.h) &&
           static_cast<std::uint32_t>(w) < static_cast<std::uint32_t>(pair_.w);
  }

  // Three taps of a row read what kStrip neighbours with stride 1 see of it: two columns more than pixels.
  CNN_DEVICE void sum_rows(A (&sums)[kStrip][kChunk], const A* shared, int channel) const {
    const T* from = corner_[0] + channel + chunk() * kChunk;
#pragma unroll 1
    for (int r = 0; r < pair_.r; ++r, from += pair_.dilation_h * pair_.x.h) {
      const int h = h_[0] + r * pair_.dilation_h;
      Vector<T, kChunk> seen[kStrip + 2];
#pragma unroll
      for (int i = 0; i < kStrip + 2; ++i)
        seen[i] = inside(h, w_[0] + i) ? load<kChunk>(from + i * pair_.x.w) : Vector<T, kChunk>{};
      A weights[3][kChunk];
#pragma unroll
      for (int s = 0; s < 3; ++s) Weights::read(shared, r * 3 + s, chunk(), weights[s]);
#pragma unroll
      for (int i = 0; i < kStrip + 2; ++i) {
#pragma unroll
        for (int e = 0; e < kChunk; ++e) {
          const A x = widen(seen[i][e]);
#pragma unroll
          for (int s = 0; s < 3; ++s)
            if (i >= s && i - s < kStrip) sums[i - s][e] = multiply_add(x, weights[s][e], sums[i - s][e]);
        }
      }
    }
  }

  CNN_DEVICE void sum_taps(A (&sums)[kStrip][kChunk], const A* shared, int channel, int first_tap,
                           int taps) const {
    std::int64_t offset[kVectors ? 1 : kChunk];  // of each channel of the chunk
    const int first = channel + chunk() * kChunk;
    if constexpr (kVectors) {
      offset[0] = first;
    } else {
#pragma unroll
      for (int e = 0; e < kChunk; ++e)
        offset[e] = pair_.multiplier.quotient(static_cast<std::uint32_t>(first + e)) * pair_.x.c;
    }
    std::uint32_t s;
    auto r = static_cast<int>(pair_.by_s.divmod(static_cast<std::uint32_t>(first_tap), s));
#pragma unroll 1
    for (int tap = 0; tap < taps; ++tap) {
      const int dh = r * pair_.dilation_h, dw = static_cast<int>(s) * pair_.dilation_w;
      const std::int64_t ahead = dh * pair_.x.h + dw * pair_.x.w;
      Vector<T, kChunk> seen[kStrip];
#pragma unroll
      for (int i = 0; i < kStrip; ++i) {
        const bool valid = inside(row_in(i) + dh, column_in(i) + dw);
        if constexpr (kVectors) {
          seen[i] = valid ? load<kChunk>(corner(i) + ahead + offset[0]) : Vector<T, kChunk>{};
        } else {
#pragma unroll
          for (int e = 0; e < kChunk; ++e)
            seen[i][e] = valid && first + e < pair_.channels ? corner(i)[ahead + offset[e]] : T{};
        }
      }
      A weights[kChunk];
      Weights::read(shared, tap, chunk(), weights);
#pragma unroll
      for (int i = 0; i < kStrip; ++i) {
#pragma unroll
        for (int e = 0; e < kChunk; ++e) sums[i][e] = multiply_add(widen(seen[i][e]), weights[e], sums[i][e]);
      }
      if (++s == static_cast<std::uint32_t>(pair_.s)) {
        s = 0;
        ++r;
      }
    }
  }

  const Pair& pair_;
  std::uint32_t patch_;
  const T* corner_[kPixels];
  std::int32_t h_[kPixels], w_[kPixels];
};

}  // namespace cnnkernels::depthwise_separable_conv
