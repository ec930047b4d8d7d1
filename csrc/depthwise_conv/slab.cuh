// forward and backward_input through shared memory: everything of NCHW, and of NHWC what has odd numbers of
// channels or several filters for one. A block copies a box of the source (region.h), computes with
// neighbouring threads at neighbouring elements of memory, each down a strip of results, and copies its box
// of the result out.
#pragma once

#include "correlate.cuh"
#include "region.cuh"
#include "slab.h"

namespace cnnkernels::depthwise_conv {

// Any filter: each tap of a column finds its elements for itself. Elements of the source are `step` apart
// down a column and `across` along a row; `weights` lie [column][row] of the filter, `slots` apart.
template <int kChunk, class Pattern, class T, int kStrip>
CNN_DEVICE void add_columns(Strip<T, 1, kStrip>& strip, const Axis& a, const Axis& b, const T* source,
                            Index step, Index across, Index first, Index column,
                            const Accumulator<T>* weights, Index slots) {
#pragma unroll 1
  for (Index s = 0; s < b.taps; ++s) {
    const Index i = b.source(column, s);
    if (i < 0) continue;
    const T* const line = source + i * across;
    const Accumulator<T>* const row = weights + s * a.taps * slots;
    Index t = 0;
    if constexpr (kChunk > 0) {
#pragma unroll 1
      for (; t + kChunk <= a.taps && Pattern::can_start(t); t += kChunk) {
        add_chunk<kChunk, Pattern>(strip, a, line, step, Pattern::first(a, first, t, kChunk), row + t * slots,
                                   slots);
      }
    }
#pragma unroll 1
    for (; t < a.taps; ++t) add_tap(strip, a, line, step, first, t, row + t * slots);
  }
}

// A filter of kChunk x kChunk taps. The rows of the window are found once, for all of its columns; those
// outside are a row of zeros, `zeros` elements from the source.
template <int kChunk, class Pattern, class T, int kStrip>
CNN_DEVICE void add_square(Strip<T, 1, kStrip>& strip, const Axis& a, const Axis& b, const T* source,
                           Index step, Index across, Index zeros, Index first, Index column,
                           const Accumulator<T>* weights, Index slots) {
  constexpr int kWindow = Pattern::window(kStrip, kChunk);
  const Index top = Pattern::first(a, first, 0, kChunk), left = column * b.stride - b.pad;
  const T* row[kWindow];
#pragma unroll
  for (int i = 0; i < kWindow; ++i)
    row[i] = source + (a.inside(top + i) ? (top + i) * step : zeros) + left * across;
#pragma unroll
  for (int s = 0; s < kChunk; ++s) {
    if (!b.inside(left + s)) continue;
    Accumulator<T> weight[kChunk];
#pragma unroll
    for (int t = 0; t < kChunk; ++t) weight[t] = weights[(s * kChunk + t) * slots];
#pragma unroll
    for (int turn = 0; turn < kWindow; ++turn) {
      const int i = Pattern::turn(turn, kWindow);
      const auto x = widen(row[i][s * across]);
#pragma unroll
      for (int o = 0; o < kStrip; ++o) {
#pragma unroll
        for (int t = 0; t < kChunk; ++t)
          if (Pattern::meet(o, t, i, kChunk)) strip.sum[o][0] = multiply_add(x, weight[t], strip.sum[o][0]);
      }
    }
  }
}

// The filters of a block's groups to shared memory, widened: weights[column][row][group, filter]. Are all
// that this thread copied finite?
template <class T>
CNN_DEVICE bool stage_filters(const Correlation& c, const Slab& s, Index first_group,
                              const T* __restrict__ filter, Accumulator<T>* weights) {
  const Index channels = extent(c.channels) / extent(s.result_each);
  bool finite = true;
  for (Index i = static_cast<Index>(threadIdx.x); i < extent(c.batch.slots) * c.a.taps * c.b.taps;
       i += static_cast<Index>(blockDim.x)) {
    Index b = i, group = split(b, c.batch.slots);
    const Index a = split(b, c.batch.taps), which = split(group, s.filters);
    group += first_group;
    if (group >= s.all_groups) continue;
    const std::int64_t f =
        std::int64_t(c.channels_last ? group : group % channels) * extent(s.filters) + which;
    weights[i] = widen(filter[f * c.taps.size + c.taps.origin + std::int64_t(a) * c.taps.step_a +
                              std::int64_t(b) * c.taps.step_b]);
    finite = finite && is_finite(weights[i]);
  }
  return finite;
}

template <class T, int kChunk, class Pattern>
CNN_KERNEL(kThreads, 2)
slab_kernel(const Correlation c, const Slab s, const T* __restrict__ source, const T* __restrict__ filter,
            const T* __restrict__ bias, T* __restrict__ result) {
  using A = Accumulator<T>;
  constexpr int kStrip = strip_of(1, kChunk, Pattern::kSparse);
  constexpr bool kSquare = slab_square(kChunk, Pattern::kTransposed), kColumns = slab_columns(kChunk);
  CNN_DYNAMIC_SHARED(shared);
  A* const weights = reinterpret_cast<A*>(shared);
  T* const from = reinterpret_cast<T*>(shared + s.source_at);
  T* const to = reinterpret_cast<T*>(shared + s.result_at);

  Index block = static_cast<Index>(blockIdx.x);
  const Index group_block = split(block, s.group_blocks), column_block = split(block, s.column_blocks);
  const Index first_strip = split(block, s.strip_blocks) * extent(s.strips);
  const Index first_group = (c.channels_last ? group_block : block) * s.groups;
  const Index groups = min(s.groups, s.all_groups - first_group);

  // The results of this block, and what of the source they read, which becomes the source of all that
  // follows.
  const Index begin = first_strip * kStrip + c.tiling.first_result;
  const Index row_begin = max(begin, Index(0));
  const Index row_end = min(begin + extent(s.strips) * kStrip, c.a.result_size);
  const Index column_begin = column_block * extent(s.columns);
  const Index column_end = min(column_begin + extent(s.columns), c.b.result_size);
  const Axis a = s.all_rows ? c.a : c.a.reached(row_begin, row_end);
  const Axis b = s.all_columns ? c.b : c.b.reached(column_begin, column_end);
  const Index top = s.all_rows ? 0 : c.a.first_reached(row_begin);
  const Index left = s.all_columns ? 0 : c.b.first_reached(column_begin);

  const Index source_each = extent(s.source_each), result_each = extent(s.result_each);
  const auto place = [&](const View& view, Index unit, Index row, Index column) {
    return (c.channels_last ? block * view.image + unit : unit * view.channel) + row * view.a +
           column * view.b;
  };
  const Box in{place(c.source, first_group * source_each, top, left), groups * source_each, a.source_size,
               b.source_size};
  const Box out{place(c.result, first_group * result_each, row_begin, column_begin), groups * result_each,
                row_end - row_begin, column_end - column_begin};
  const Index zeros_at = (s.zeros_at - s.source_at) / static_cast<Index>(sizeof(T));
  for (Index i = static_cast<Index>(threadIdx.x); i < b.source_size * s.source.pitch_b;
       i += static_cast<Index>(blockDim.x))
    from[zeros_at + i] = T{};
  copy_in(s.source, in, from, source);
  cp_async_commit();
  const bool finite = stage_filters(c, s, first_group, filter, weights);
  cp_async_wait<0>();
  const bool exactly = __syncthreads_or(!finite);

  const bool square = is_square(c, kChunk);
  const Index in_head = head_of(source, in.begin), out_head = head_of(result, out.begin);
  const Index slots = extent(c.batch.slots), step = s.source.pitch_a, across = s.source.pitch_b;

  const Index items = extent(s.units) * extent(s.strips) * extent(s.columns);
  for (Index item = static_cast<Index>(threadIdx.x); item < items; item += static_cast<Index>(blockDim.x)) {
    Index unit, column, strip_here = item;
    if (c.channels_last) {
      unit = split(strip_here, s.units);
      column = split(strip_here, s.columns);
    } else {
      column = split(strip_here, s.columns);
      unit = strip_here;
      strip_here = split(unit, s.strips);
    }
    const Index first = strip_here * kStrip + begin;
    if (first >= row_end || unit >= out.units || column >= out.columns) continue;
    Strip<T, 1, kStrip> strip;
    A start = 0;
    if (bias != nullptr) {
      Index channel = first_group * result_each + unit;
      if (!c.channels_last) channel = split(channel, c.channels);
      start = widen(bias[channel]);
    }
#pragma unroll
    for (int o = 0; o < kStrip; ++o) strip.sum[o][0] = start;

    Index source_unit = unit;
    split(source_unit, s.result_each);
    source_unit *= source_each;
    if (exactly) {
#pragma unroll 1
      for (Index term = 0; term < source_each; ++term) {
        const T* const here = from + in_head + (source_unit + term) * s.source.pitch_unit;
        const A* const weight = weights + unit * source_each + term;
        add_exactly(strip, a, b, here, step, across, first, column_begin + column, 0, a.taps, 0, b.taps,
                    [&](Index t, Index s) { return weight + (s * a.taps + t) * slots; });
      }
    }
#pragma unroll 1
    for (Index term = exactly ? source_each : 0; term < source_each; ++term) {
      const Index here = in_head + (source_unit + term) * s.source.pitch_unit;
      const A* const weight = weights + unit * source_each + term;
      if constexpr (kSquare) {
        if (square) {
          add_square<kChunk, Pattern>(strip, a, b, from + here, step, across, zeros_at - here, first,
                                      column_begin + column, weight, slots);
        }
      }
      if constexpr (kColumns) {
        if (!square) {
          add_columns<kChunk, Pattern>(strip, a, b, from + here, step, across, first, column_begin + column,
                                       weight, slots);
        }
      }
    }
#pragma unroll
    for (int o = 0; o < kStrip; ++o) {
      if (first + o < row_begin || first + o >= row_end) continue;
      to[out_head + unit * s.result.pitch_unit + (first + o - row_begin) * s.result.pitch_a +
         column * s.result.pitch_b] = narrow<T>(strip.sum[o][0]);
    }
  }
  __syncthreads();
  copy_out(s.result, out, result, to);
}

// The kernels that select.h's can_chunk promises.
template <class T>
auto slab_kernel_for(const Axis& a, int chunk) {
  const auto forward = [&](auto taps) {
    constexpr int kTaps = decltype(taps)::value;
    if constexpr (kTaps < 7) {
      if (a.stride == 2) return &slab_kernel<T, kTaps, Forward<2>>;
    }
    return &slab_kernel<T, kTaps, Forward<1>>;
  };
  if constexpr (sizeof(T) <= 4) {
    if (chunk == 5) return forward(std::integral_constant<int, 5>{});
  }
  if constexpr (sizeof(T) == 2) {
    if (chunk == 7) return forward(std::integral_constant<int, 7>{});
  }
  if (chunk == 0) return &slab_kernel<T, 0, Anyhow>;
  return a.transposed ? &slab_kernel<T, 3, BackwardByTwo> : forward(std::integral_constant<int, 3>{});
}

template <class T>
void launch_slab(Correlation c, const Plan& plan, const CorrelationPointers& pointers,
                 std::uintptr_t stream) {
  const Slab slab = slab_of(c, plan, sizeof(T));
  c.tiling.first_result = first_result(c.a, plan);
  c.batch = {c.b.taps, FastDivide(c.a.taps), FastDivide(std::int64_t(slab.groups) * slab.filters.divisor)};
  const double images = c.channels_last ? double(c.images) : double(ceil_div(slab.all_groups, slab.groups));
  const double units = double(c.images) * c.channels.divisor * c.terms;
  const double blocks =
      images * slab.group_blocks.divisor * slab.strip_blocks.divisor * slab.column_blocks.divisor;
  if (blocks >= 0x1p31 || units + slab.groups >= 0x1p31)
    throw_invalid_argument("depthwise_conv2d: more than 2^31 blocks or planes");
  const Launch how{dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(plan.workers)),
                   static_cast<std::size_t>(slab.bytes), stream};
  launch(slab_kernel_for<T>(c.a, plan.chunk), how, c, slab, static_cast<const T*>(pointers.source),
         static_cast<const T*>(pointers.filter), static_cast<const T*>(pointers.bias),
         static_cast<T*>(pointers.result));
}

}  // namespace cnnkernels::depthwise_conv
