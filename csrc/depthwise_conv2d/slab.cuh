// forward and backward_input of NCHW with one filter a channel. A block takes a slab: whole rows of one
// plane, or several whole planes. Either is one piece of memory, of any width and at any place, so it is
// copied to shared memory by 16-byte accesses whether rows are aligned or not; and so is what comes out of
// it. In between, neighbouring threads read neighbouring columns, each down a strip of results.
#pragma once

#include "../ptx/cp_async.cuh"
#include "correlate.cuh"

namespace cnnkernels::depthwise_conv2d {

struct Slab {
  Index planes;      // N K
  FastDivide width;  // of the result
  SlabMemory memory;
};

// Elements [begin, begin + count) of a tensor; the first of them lies at `head` in shared memory, so that
// both sides are aligned alike.
struct Piece {
  std::int64_t begin;
  Index count, head;
};

template <class T>
CNN_DEVICE Piece piece(std::int64_t begin, Index count) {
  return {begin, count, static_cast<Index>(begin % (kVectorBytes / sizeof(T)))};
}

// Copies a piece, and what else its first and last vector hold: `total` elements may be read.
template <class T>
CNN_DEVICE void copy_in(T* shared, const T* tensor, const Piece& piece, std::int64_t total) {
  constexpr int V = kVectorBytes / sizeof(T);
  const std::int64_t first = piece.begin - piece.head;
  for (Index i = static_cast<Index>(threadIdx.x) * V; i < piece.head + piece.count;
       i += static_cast<Index>(blockDim.x) * V) {
    if (first + i + V <= total) {
      cp_async<kVectorBytes>(shared + i, tensor + first + i, true);
    } else {
      for (Index j = i; first + j < total; ++j) shared[j] = tensor[first + j];
    }
  }
}

// Copies exactly a piece: whole words, a warp's beside each other, then what stands before and behind them.
template <class T>
CNN_DEVICE void copy_out(T* tensor, const T* shared, const Piece& piece) {
  constexpr int V = sizeof(T) == 2 ? 2 : 1;
  T* const first = tensor + (piece.begin - piece.head);
  const Index thread = static_cast<Index>(threadIdx.x), end = piece.head + piece.count;
  const Index from = (piece.head + V - 1) / V * V, to = end / V * V;
  for (Index i = from + thread * V; i < to; i += static_cast<Index>(blockDim.x) * V)
    store(first + i, load<V>(shared + i));
  for (Index i = piece.head + thread; i < min(from, end); i += static_cast<Index>(blockDim.x))
    first[i] = shared[i];
  for (Index i = max(to, from) + thread; i < end; i += static_cast<Index>(blockDim.x)) first[i] = shared[i];
}

// Any filter: each tap of a column finds its elements for itself.
template <int kChunk, class Walk, class T, int kStrip>
CNN_DEVICE void add_columns(Strip<T, 1, kStrip>& strip, const Axis& a, const Axis& b, const T* source,
                            Index first, Index column, const Accumulator<T>* weights, Index slots) {
#pragma unroll 1
  for (Index s = 0; s < b.taps; ++s) {
    const Index i = b.source(column, s);
    if (i < 0) continue;
    const Accumulator<T>* const row = weights + s * a.taps * slots;
    Index t = 0;
    if constexpr (kChunk > 0) {
#pragma unroll 1
      for (; t + kChunk <= a.taps && Walk::can_start(t); t += kChunk) {
        add_chunk<kChunk, Walk>(strip, a, source + i, b.source_size, Walk::first(a, first, t, kChunk),
                                row + t * slots, slots);
      }
    }
#pragma unroll 1
    for (; t < a.taps; ++t) add_tap(strip, a, source + i, b.source_size, first, t, row + t * slots);
  }
}

// A filter of kChunk x kChunk taps. The rows of the window are found once, for all of its columns; those
// outside are a row of zeros. `weights` are [column][row] of the filter, `slots` apart.
template <int kChunk, class Walk, class T, int kStrip>
CNN_DEVICE void add_square(Strip<T, 1, kStrip>& strip, const Axis& a, const Axis& b, const T* source,
                           Index zeros, Index first, Index column, const Accumulator<T>* weights,
                           Index slots) {
  constexpr int kWindow = Walk::window(kStrip, kChunk);
  const Index top = Walk::first(a, first, 0, kChunk), left = column * b.stride - b.pad;
  const T* row[kWindow];
#pragma unroll
  for (int i = 0; i < kWindow; ++i)
    row[i] = source + (a.inside(top + i) ? (top + i) * b.source_size : zeros) + left;
#pragma unroll
  for (int s = 0; s < kChunk; ++s) {
    if (!b.inside(left + s)) continue;
    Accumulator<T> weight[kChunk];
#pragma unroll
    for (int t = 0; t < kChunk; ++t) weight[t] = weights[(s * kChunk + t) * slots];
#pragma unroll
    for (int turn = 0; turn < kWindow; ++turn) {
      const int i = Walk::turn(turn, kWindow);
      const auto x = widen(row[i][s]);
#pragma unroll
      for (int o = 0; o < kStrip; ++o) {
#pragma unroll
        for (int t = 0; t < kChunk; ++t)
          if (Walk::meet(o, t, i, kChunk)) strip.sum[o][0] = multiply_add(x, weight[t], strip.sum[o][0]);
      }
    }
  }
}

template <class T, int kChunk, class Walk>
CNN_KERNEL(kThreads, 2)
slab_kernel(const Correlation c, const Slab s, const T* __restrict__ source, const T* __restrict__ filter,
            const T* __restrict__ bias, T* __restrict__ result) {
  using A = Accumulator<T>;
  constexpr int kStrip = strip_of(1, kChunk, Walk::kSparse);
  CNN_DYNAMIC_SHARED(shared);
  A* const weights = reinterpret_cast<A*>(shared);
  T* const from = reinterpret_cast<T*>(shared + s.memory.source_at);
  T* const to = reinterpret_cast<T*>(shared + s.memory.result_at);

  Index plane_block = static_cast<Index>(blockIdx.x);
  const Index first_strip = split(plane_block, c.tiling.strip_blocks) * extent(c.tiling.strips);
  const Index planes = min(c.tiling.images, s.planes - plane_block * c.tiling.images);
  const std::int64_t first_plane = std::int64_t(plane_block) * c.tiling.images;
  const Index width = c.b.result_size;

  // Rows of the result, and of the source that they read, which becomes the source of all that follows.
  const Index begin = first_strip * kStrip + c.tiling.first_result;
  const Index row_begin = max(begin, Index(0));
  const Index row_end = min(begin + extent(c.tiling.strips) * kStrip, c.a.result_size);
  const bool whole = c.tiling.images > 1;  // several planes lie together only as wholes
  const Index low = whole ? 0 : max(c.a.lowest(row_begin), Index(0));
  const Index high = whole ? c.a.source_size : min(c.a.highest(row_end - 1) + 1, c.a.source_size);
  const Axis a = c.a.cut(low, max(high - low, Index(0)));

  const Index source_plane = a.source_size * c.b.source_size, result_plane = (row_end - row_begin) * width;
  const Piece in =
      piece<T>(first_plane * c.source.channel + std::int64_t(low) * c.b.source_size, planes * source_plane);
  const Piece out =
      piece<T>(first_plane * c.result.channel + std::int64_t(row_begin) * width, planes * result_plane);
  for (Index i = static_cast<Index>(threadIdx.x); i < c.b.source_size; i += static_cast<Index>(blockDim.x))
    reinterpret_cast<T*>(shared + s.memory.zeros_at)[i] = T{};
  copy_in(from, source, in, std::int64_t(s.planes) * c.source.channel);
  cp_async_commit();
  stage<1>(c, filter, weights, 0, 0, 0);
  cp_async_wait<0>();
  __syncthreads();

  // Where the row of zeros starts, from the first element of the slab.
  const Index zeros = (s.memory.zeros_at - s.memory.source_at) / static_cast<Index>(sizeof(T)) - in.head;
  const bool square =
      kChunk > 0 && c.a.taps == kChunk && c.b.taps == kChunk && c.b.dilation == 1 && !c.b.transposed;

  const Index items = planes * extent(c.tiling.strips) * width;
  for (Index item = static_cast<Index>(threadIdx.x); item < items; item += static_cast<Index>(blockDim.x)) {
    Index plane = item;
    const Index column = split(plane, s.width);
    const Index first = split(plane, c.tiling.strips) * kStrip + begin;
    if (first >= c.a.result_size) continue;
    Index n = static_cast<Index>(first_plane) + plane;
    const Index channel = split(n, c.channels);

    Strip<T, 1, kStrip> strip;
    const A start = bias != nullptr ? widen(bias[channel]) : A(0);
#pragma unroll
    for (int o = 0; o < kStrip; ++o) strip.sum[o][0] = start;
    const T* const here = from + in.head + plane * source_plane;
    if (square) {
      if constexpr (kChunk > 0) {
        add_square<kChunk, Walk>(strip, a, c.b, here, zeros - plane * source_plane, first, column,
                                 weights + plane, c.tiling.images);
      }
    } else {
      add_columns<kChunk, Walk>(strip, a, c.b, here, first, column, weights + plane, c.tiling.images);
    }
#pragma unroll
    for (int o = 0; o < kStrip; ++o) {
      if (first + o < row_begin || first + o >= row_end) continue;
      to[out.head + plane * result_plane + (first + o - row_begin) * width + column] =
          narrow<T>(strip.sum[o][0]);
    }
  }
  __syncthreads();
  copy_out(result, to, out);
}

template <class T>
void launch_slab(Correlation c, const Plan& plan, const CorrelationPointers& pointers,
                 std::uintptr_t stream) {
  const SlabMemory memory = slab_memory(c, plan, sizeof(T));
  const std::int64_t strips = strips_along(c.a, plan), planes = std::int64_t(c.images) * c.channels.divisor;
  Tiling& t = c.tiling;
  t.first_result = first_result(c.a, plan);
  t.strips = FastDivide(plan.strips);
  t.images = plan.images;
  t.strip_blocks = FastDivide(ceil_div(strips, plan.strips));
  c.batch = {c.b.taps, FastDivide(c.a.taps), FastDivide(plan.images)};
  const Slab slab{static_cast<Index>(planes), FastDivide(c.b.result_size), memory};
  const double blocks = double(t.strip_blocks.divisor) * double(ceil_div(planes, plan.images));
  if (blocks >= 0x1p31 || planes + plan.images >= INT32_MAX)
    throw std::invalid_argument("depthwise_conv2d: more than 2^31 blocks or planes");
  const Launch how{dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(plan.workers)),
                   static_cast<std::size_t>(memory.bytes), stream};
  launch(kernel_for<T, 7>(
             c.a, plan.chunk,
             [](auto chunk, auto walk) { return &slab_kernel<T, decltype(chunk)::value, decltype(walk)>; }),
         how, c, slab, static_cast<const T*>(pointers.source), static_cast<const T*>(pointers.filter),
         static_cast<const T*>(pointers.bias), static_cast<T*>(pointers.result));
}

}  // namespace cnnkernels::depthwise_conv2d
