// forward and backward_input of NCHW with one filter a channel. A block takes a slab: whole rows of one
// plane, or several whole planes. Either is one piece of memory, of any width and at any place, so it is
// copied to shared memory by 16-byte accesses whether rows are aligned or not; and so is what comes out of
// it. In between, neighbouring threads read neighbouring columns, each down a strip of results.
#pragma once

#include "../ptx/cp_async.cuh"
#include "correlate.cuh"

namespace cnnkernels::depthwise_conv2d {

struct Slab {
  Index planes;                // N K
  FastDivide width;            // of the result
  Index source_at, result_at;  // bytes into shared memory, behind the filters
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

// Copies exactly a piece.
template <class T>
CNN_DEVICE void copy_out(T* tensor, const T* shared, const Piece& piece) {
  constexpr int V = kVectorBytes / sizeof(T);
  const std::int64_t first = piece.begin - piece.head;
  const Index end = piece.head + piece.count;
  for (Index i = static_cast<Index>(threadIdx.x) * V; i < end; i += static_cast<Index>(blockDim.x) * V) {
    if (i >= piece.head && i + V <= end) {
      store(tensor + first + i, load<V>(shared + i));
    } else {
      for (Index j = i < piece.head ? piece.head : i; j < i + V && j < end; ++j)
        tensor[first + j] = shared[j];
    }
  }
}

template <class T, int kChunk, class Walk>
CNN_KERNEL(kThreads, 3)
slab_kernel(const Correlation c, const Slab s, const T* __restrict__ source, const T* __restrict__ filter,
            const T* __restrict__ bias, T* __restrict__ result) {
  using A = Accumulator<T>;
  constexpr int kStrip = strip_of(1, kChunk, Walk::kSparse);
  CNN_DYNAMIC_SHARED(shared);
  A* const weights = reinterpret_cast<A*>(shared);
  T* const from = reinterpret_cast<T*>(shared + s.source_at);
  T* const to = reinterpret_cast<T*>(shared + s.result_at);

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
  copy_in(from, source, in, std::int64_t(s.planes) * c.source.channel);
  cp_async_commit();
  stage<1>(c, filter, weights, 0, 0, 0);
  cp_async_wait<0>();
  __syncthreads();

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
#pragma unroll 1
    for (Index b = 0; b < c.b.taps; ++b) {
      const Index i = c.b.source(column, b);
      if (i < 0) continue;
      const T* const line = from + in.head + plane * source_plane + i;
      const A* const row = weights + b * c.a.taps * c.tiling.images + plane;
      Index t = 0;
      if constexpr (kChunk > 0) {
#pragma unroll 1
        for (; t + kChunk <= c.a.taps && Walk::can_start(t); t += kChunk) {
          add_chunk<kChunk, Walk>(strip, a, line, c.b.source_size, Walk::first(a, first, t, kChunk),
                                  row + t * c.tiling.images, c.tiling.images);
        }
      }
#pragma unroll 1
      for (; t < c.a.taps; ++t) add_tap(strip, a, line, c.b.source_size, first, t, row + t * c.tiling.images);
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
  const Slab slab{static_cast<Index>(planes), FastDivide(c.b.result_size), memory.source_at,
                  memory.result_at};
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
