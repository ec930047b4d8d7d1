// The kernel of forward and backward_input, and its launch. A thread makes a strip of kStrip results of one
// line for V channels: it reads each element of a window of the source once, widens it once, and adds it to
// every result that a chunk of taps puts it into. Neighbouring strips and lines of a block read what lies
// between them from the L1 cache, where the first of them brought it.
#pragma once

#include <type_traits>

#include "../common/launch.h"
#include "../common/types.h"
#include "correlate.h"
#include "read.cuh"

namespace cnnkernels::depthwise_conv {

// A thread's place among the results.
struct Site {
  Index image, channel;  // the first of V channels
  Index a, b;            // the strip's first result, its line
  Index slot;            // of its filters in shared memory
  bool active;
};

// Neighbouring threads stand at neighbouring memory: lanes (of NHWC), then columns, then rows, then images.
template <int V, int kStrip>
CNN_DEVICE Site site_of(const Correlation& c, Index block, Index thread) {
  const Tiling& t = c.tiling;
  const Index lane = split(thread, t.lanes);
  const Index lane_block = split(block, t.lane_blocks);
  const auto strip_of = [&] {
    return split(block, t.strip_blocks) * extent(t.strips) + split(thread, t.strips);
  };
  const auto line_of = [&] { return split(block, t.line_blocks) * extent(t.lines) + split(thread, t.lines); };
  Site site;
  Index strip;
  if constexpr (V > 1) {
    strip = strip_of();
    site.b = line_of();
  } else {
    site.b = line_of();
    strip = strip_of();
  }
  site.a = strip * kStrip + t.first_result;
  const Index image = block * t.images + thread;
  if (c.channels_last) {
    site.image = image;
    site.slot = lane * V;
    site.channel = lane_block * extent(t.lanes) * V + site.slot;
    site.active = site.channel < extent(c.channels);
  } else {
    site.slot = thread;  // an image here is a plane
    site.image = image;
    site.channel = split(site.image, c.channels);
    site.active = true;
  }
  site.active = site.active && thread < t.images && site.image < c.images && site.b < c.b.result_size &&
                site.a < c.a.result_size;
  return site;
}

// Copies taps [b0, b0 + batch.lines) x [a0, a0 + batch.taps) of the block's filters to shared memory,
// widened: weights[line][tap][slot]. Are all that this thread copied finite?
template <int V, class T>
CNN_DEVICE bool stage(const Correlation& c, const T* __restrict__ filter, Accumulator<T>* weights, Index term,
                      Index a0, Index b0) {
  const Index slots = extent(c.batch.slots), taps = extent(c.batch.taps);
  Index image_block = static_cast<Index>(blockIdx.x);
  const Index lane_block = split(image_block, c.tiling.lane_blocks);
  split(image_block, c.tiling.strip_blocks);
  split(image_block, c.tiling.line_blocks);
  bool finite = true;
  for (Index i = static_cast<Index>(threadIdx.x); i < c.batch.lines * taps * slots;
       i += static_cast<Index>(blockDim.x)) {
    Index line = i;
    const Index slot = split(line, c.batch.slots);
    const Index a = a0 + split(line, c.batch.taps), b = b0 + line;
    if (a >= c.a.taps || b >= c.b.taps) continue;
    Index channel = lane_block * slots + slot;
    if (!c.channels_last) {
      Index plane = image_block * c.tiling.images + slot;
      channel = split(plane, c.channels);
    }
    if (channel >= extent(c.channels)) continue;
    const std::int64_t f = std::int64_t(channel) * c.terms + term;
    weights[i] = widen(filter[f * c.taps.size + c.taps.origin + std::int64_t(a) * c.taps.step_a +
                              std::int64_t(b) * c.taps.step_b]);
    finite = finite && is_finite(weights[i]);
  }
  return finite;
}

// A thread's kStrip x V sums.
template <class T, int V, int kStrip>
struct Strip {
  using Wide = Vector<Accumulator<T>, V>;
  Wide sum[kStrip];

  CNN_DEVICE void add(int o, const Wide& x, const Wide& weight) {
#pragma unroll
    for (int v = 0; v < V; ++v) sum[o][v] = multiply_add(x[v], weight[v], sum[o][v]);
  }
};

// kChunk taps beside each other: each element of the window is read and widened once and serves all of them.
template <int kChunk, class Pattern, class T, int V, int kStrip, class Step>
CNN_DEVICE void add_chunk(Strip<T, V, kStrip>& strip, const Axis& axis, const T* __restrict__ line, Step step,
                          Index first, const Accumulator<T>* weights, Index slots) {
  constexpr int kWindow = Pattern::window(kStrip, kChunk);
  Vector<T, V> window[kWindow];
  read_window<V>(window, axis, line, step, first);
  typename Strip<T, V, kStrip>::Wide weight[kChunk];
#pragma unroll
  for (int t = 0; t < kChunk; ++t) weight[t] = load<V>(weights + t * slots);
#pragma unroll
  for (int turn = 0; turn < kWindow; ++turn) {
    const int i = Pattern::turn(turn, kWindow);
    const auto x = widened(window[i]);
#pragma unroll
    for (int o = 0; o < kStrip; ++o) {
#pragma unroll
      for (int t = 0; t < kChunk; ++t)
        if (Pattern::meet(o, t, i, kChunk)) strip.add(o, x, weight[t]);
    }
  }
}

template <class T, int V, int kStrip, class Step>
CNN_DEVICE void add_tap(Strip<T, V, kStrip>& strip, const Axis& axis, const T* __restrict__ line, Step step,
                        Index a, Index tap, const Accumulator<T>* weights) {
  const auto weight = load<V>(weights);
  Vector<T, V> x[kStrip];
#pragma unroll
  for (int o = 0; o < kStrip; ++o) x[o] = element<V>(axis, line, step, axis.source(a + o, tap));
#pragma unroll
  for (int o = 0; o < kStrip; ++o) strip.add(o, widened(x[o]), weight);
}

// Taps [a0, a_end) x [b0, b_end) by their definition (axis.h), for what the ways above take for granted, that
// taps are finite: they leave lines of zeros out, and multiply by zero what a stride passes over. Sums are
// theirs, bit by bit, where all taps are. weight_of(tap, line) is the weights' place.
template <class T, int V, int kStrip, class Step, class WeightOf>
CNN_DEVICE void add_exactly(Strip<T, V, kStrip>& strip, const Axis& axis_a, const Axis& axis_b,
                            const T* __restrict__ source, Step step_a, Step step_b, Index first, Index line,
                            Index a0, Index a_end, Index b0, Index b_end, const WeightOf& weight_of) {
#pragma unroll 1
  for (Index b = b0; b < b_end; ++b) {
    const Index j = axis_b.place(line, b);
    if (j == kPassed) continue;
    const bool inside = axis_b.inside(j);
    const T* const from = source + (inside ? j : 0) * step_b;
#pragma unroll 1
    for (Index a = a0; a < a_end; ++a) {
      const auto weight = load<V>(weight_of(a, b));
#pragma unroll
      for (int o = 0; o < kStrip; ++o) {
        const Index i = axis_a.place(first + o, a);
        if (i == kPassed) continue;
        strip.add(o, widened(inside ? element<V>(axis_a, from, step_a, i) : Vector<T, V>{}), weight);
      }
    }
  }
}

template <class T, int V, int kChunk, class Pattern>
CNN_KERNEL(kThreads, kChunk <= 3 && !Pattern::kSparse ? 2 : 1)
correlate_kernel(const Correlation c, const T* __restrict__ source, const T* __restrict__ filter,
                 const T* __restrict__ bias, T* __restrict__ result) {
  using A = Accumulator<T>;
  constexpr int kStrip = strip_of(V, kChunk, Pattern::kSparse);
  CNN_DYNAMIC_SHARED(shared);
  A* const weights = reinterpret_cast<A*>(shared);
  const Index slots = extent(c.batch.slots), taps = extent(c.batch.taps);
  const Site site = site_of<V, kStrip>(c, static_cast<Index>(blockIdx.x), static_cast<Index>(threadIdx.x));

  Strip<T, V, kStrip> strip;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const A start = bias != nullptr && site.active ? widen(bias[site.channel + v]) : A(0);
#pragma unroll
    for (int o = 0; o < kStrip; ++o) strip.sum[o][v] = start;
  }

  // A vector's strips run along a row, whose step is the number of channels.
  const auto step = static_cast<std::conditional_t<(V > 1), Index, std::int64_t>>(c.source.a);
  const std::int64_t channel = std::int64_t(c.multiplier.quotient(static_cast<std::uint32_t>(site.channel)));
  const T* x = source + site.image * c.source.image + channel * c.terms * c.source.channel;
  for (Index term = 0; term < c.terms; ++term, x += c.source.channel) {
    for (Index b0 = 0; b0 < c.b.taps; b0 += c.batch.lines) {
      for (Index a0 = 0; a0 < c.a.taps; a0 += taps) {
        __syncthreads();  // the filters before these have been used
        const bool finite = stage<V>(c, filter, weights, term, a0, b0);
        const bool exactly = __syncthreads_or(!finite);
        if (!site.active) continue;
        const Index a_end = min(a0 + taps, c.a.taps), b_end = min(b0 + c.batch.lines, c.b.taps);
        if (exactly) {
          add_exactly(
              strip, c.a, c.b, x, c.source.a, c.source.b, site.a, site.b, a0, a_end, b0, b_end,
              [&](Index a, Index b) { return weights + ((b - b0) * taps + a - a0) * slots + site.slot; });
          continue;
        }
#pragma unroll 1
        for (Index b = b0; b < b_end; ++b) {
          const Index from = c.b.source(site.b, b);
          if (from < 0) continue;
          const T* line = x + from * c.source.b;
          const A* row = weights + (b - b0) * taps * slots + site.slot;
          Index a = a0;
          if constexpr (kChunk > 0) {
#pragma unroll 1
            for (; a + kChunk <= a_end && Pattern::can_start(a); a += kChunk) {
              add_chunk<kChunk, Pattern>(strip, c.a, line, step, Pattern::first(c.a, site.a, a, kChunk),
                                         row + (a - a0) * slots, slots);
            }
          }
#pragma unroll 1
          for (; a < a_end; ++a) add_tap(strip, c.a, line, step, site.a, a, row + (a - a0) * slots);
        }
      }
    }
  }
  if (!site.active) return;

  T* y = result + site.image * c.result.image + site.channel * c.result.channel + site.b * c.result.b;
#pragma unroll
  for (int o = 0; o < kStrip; ++o) {
    const Index a = site.a + o;
    if (a < 0 || a >= c.a.result_size) continue;
    Vector<T, V> rounded;
#pragma unroll
    for (int v = 0; v < V; ++v) rounded[v] = narrow<T>(strip.sum[o][v]);
    store(y + a * c.result.a, rounded);
  }
}

// Calls of(chunk, pattern), which names a kernel: those that select.h's can_chunk promises.
template <class T, class Of>
auto kernel_for(const Axis& a, int chunk, Of&& of) {
  const auto with = [&](auto taps) {
    if constexpr (constexpr int kTaps = decltype(taps)::value; kTaps < 7) {
      if (a.transposed) return of(taps, BackwardByTwo{});
      if (a.stride == 2) return of(taps, Forward<2>{});
    }
    return of(taps, Forward<1>{});
  };
  if constexpr (sizeof(T) <= 4) {
    if (chunk == 5) return with(std::integral_constant<int, 5>{});
  }
  if constexpr (sizeof(T) == 2) {
    if (chunk == 7) return with(std::integral_constant<int, 7>{});
  }
  return chunk == 3 ? with(std::integral_constant<int, 3>{}) : of(std::integral_constant<int, 0>{}, Anyhow{});
}

template <class T>
void launch_correlation(const Correlation& correlation, const Plan& plan, const CorrelationPointers& pointers,
                        std::uintptr_t stream) {
  constexpr int V = 16 / sizeof(T);
  Correlation c = correlation;
  const auto threads = [](int count) { return FastDivide(count); };
  const auto blocks = [](std::int64_t count, int each) { return FastDivide(ceil_div(count, each)); };
  Tiling& t = c.tiling;
  t.first_result = first_result(c.a, plan);
  t.lanes = threads(plan.lanes);
  t.strips = threads(plan.strips);
  t.lines = threads(plan.lines);
  t.images = plan.images;
  const std::int64_t channels = c.channels.divisor;
  const std::int64_t images = c.channels_last ? c.images : c.images * channels;
  t.lane_blocks = c.channels_last ? blocks(channels, plan.lanes * plan.vector) : FastDivide(1);
  t.strip_blocks = blocks(strips_along(c.a, plan), plan.strips);
  t.line_blocks = blocks(c.b.result_size, plan.lines);
  const double count = double(t.lane_blocks.divisor) * t.strip_blocks.divisor * t.line_blocks.divisor *
                       double(ceil_div(images, plan.images));
  if (count >= 0x1p31 || images + plan.images >= INT32_MAX)
    throw_invalid_argument("depthwise_conv2d: more than 2^31 blocks or planes");

  const int slots = c.channels_last ? plan.lanes * plan.vector : plan.images;
  const int room = kBatchBytes / static_cast<int>(sizeof(Accumulator<T>)) / slots;
  c.batch.slots = FastDivide(slots);
  const int taps = c.a.taps < room ? c.a.taps : room;
  c.batch.taps = FastDivide(taps);
  c.batch.lines = taps < c.a.taps ? 1 : c.b.taps < room / taps ? c.b.taps : room / taps;

  const Launch how{dim3(static_cast<unsigned>(count)),
                   dim3(static_cast<unsigned>(plan.lanes * plan.strips * plan.lines * plan.images)),
                   sizeof(Accumulator<T>) * c.batch.lines * taps * slots, stream};
  const auto wide = [&] {
    return kernel_for<T>(c.a, plan.chunk, [](auto taps, auto pattern) {
      return &correlate_kernel<T, V, decltype(taps)::value, decltype(pattern)>;
    });
  };
  launch(plan.vector == 1 ? &correlate_kernel<T, 1, 0, Anyhow> : wide(), how, c,
         static_cast<const T*>(pointers.source), static_cast<const T*>(pointers.filter),
         static_cast<const T*>(pointers.bias), static_cast<T*>(pointers.result));
}

}  // namespace cnnkernels::depthwise_conv
