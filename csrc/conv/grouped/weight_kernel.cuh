// The kernel of grouped/weight.h.
#pragma once

#include "kernel.cuh"
#include "weight.h"

namespace cnnkernels::conv::grouped {

// Brings a patch's error, zeros beyond the image and the bundle, and notes where each pixel's windows begin
// in the region; a pixel that there is not reads zeros, whatever its windows hold.
template <class T>
CNN_DEVICE void start_error(const Sweep& sweep, const Patch& patch, const Gradient& gradient,
                            const Bundle<T, 1>& bundle, const Site& site, unsigned char* shared) {
  constexpr Index kChunk = kChunkBytes / sizeof(T);
  const auto inside = [&](Index pixel, Index& row, Index& column) {
    row = pixel;
    column = site.column + split(row, patch.columns);
    row += site.row;
    return pixel < patch.pixels && row < sweep.h.results && column < sweep.w.results;
  };
  const T* error = static_cast<const T*>(gradient.error);
  const T* from = error + site.image * sweep.result_steps.n + bundle.first_filter();
  const Index present = bundle.groups() * sweep.filters / kChunk;
  const Index all = gradient.pixels * value(patch.result_chunks);
  for (Index i = static_cast<Index>(threadIdx.x); i < all; i += kThreads) {
    Index pixel = i, row, column;
    const Index chunk = split(pixel, patch.result_chunks);
    const bool valid = inside(pixel, row, column) && chunk < present;
    const T* source = from + row * sweep.result_steps.h + column * sweep.result_steps.w + chunk * kChunk;
    cp_async<kChunkBytes>(shared + gradient.error_at + pixel * gradient.error_pitch + chunk * kChunkBytes,
                          valid ? source : error, valid);
  }
  cp_async_commit();
  auto* places = reinterpret_cast<Index*>(shared + gradient.places_at);
  for (Index pixel = static_cast<Index>(threadIdx.x); pixel < gradient.pixels; pixel += kThreads) {
    Index row, column;
    places[pixel] = inside(pixel, row, column) ? bundle.place_of(pixel) : kNowhere;
  }
}

// What one warp sums over all patches of a part: up to 5 x 16 rows, runs of channels at taps, by up to 2 x 8
// filters of one unit.
template <class T>
class GradientItem {
 public:
  CNN_DEVICE GradientItem(const Sweep& sweep, const Patch& patch, const Gradient& gradient, Index at)
      : sweep_(sweep), patch_(patch), gradient_(gradient) {
    first_run_ = split(at, gradient.row_passes) * kRowTiles * 2;
    first_column_ = split(at, gradient.column_passes) * kColumnTiles;
    unit_ = at;
    row_tiles_ = min(gradient.row_tiles - first_run_ / 2, Index(kRowTiles));
    column_tiles_ = min(gradient.error_runs - first_column_, Index(kColumnTiles));
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      // Past the last there is a row that nobody stores: any other's numbers will do.
      const Index run = min(first_run_ + 2 * i + lane() / 8 % 2, runs() - 1);
      const Index tap = run / gradient.input_runs, within = run - tap * gradient.input_runs;
      const Index tap_h = tap / sweep.w.taps, tap_w = tap - tap_h * sweep.w.taps;
      offset_[i] = tap_h * sweep.h.tap_step * patch.row_pitch + tap_w * sweep.w.tap_step * patch.pixel_pitch +
                   (unit_ * gradient.input_runs + within) * kChunkBytes;
    }
  }

  CNN_DEVICE Index unit() const { return unit_; }

  CNN_DEVICE void add(const unsigned char* shared) {
    const auto* places = reinterpret_cast<const Index*>(shared + gradient_.places_at);
    const Index column =
        unit_ * gradient_.error_runs + first_column_ + (column_tiles_ == 2 ? lane() / 16 : 0);
    const unsigned char* error = shared + gradient_.error_at + column * kChunkBytes;
#pragma unroll 1
    for (Index pixel = 0; pixel < gradient_.pixels; pixel += kPixelTile) {
      // ldmatrix: matrices of 8 pixels by 8 channels, turned. Of the input, two runs at the first eight
      // pixels, then at the others; of the error, both eights of a run, then of the next.
      std::uint32_t columns[4], rows[1][4];
      ldmatrix_x4_trans(columns, error + (pixel + lane() % 16) * gradient_.error_pitch);
      const std::uint32_t first[1][2] = {{columns[0], columns[1]}}, second[1][2] = {{columns[2], columns[3]}};
      const Index place = places[pixel + lane() % 8 + lane() / 16 * 8];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        if (i >= row_tiles_) break;
        ldmatrix_x4_trans(rows[0], shared + (place == kNowhere ? patch_.zeros_at : place + offset_[i]));
        mma_tile<T>(sum_[i][0], rows, first);
        if (column_tiles_ == 2) mma_tile<T>(sum_[i][1], rows, second);
      }
    }
  }

  // Calls visit(element of the filter's gradient, sum) for each, of groups that there are.
  template <class Visit>
  CNN_DEVICE void each(Index first_group, Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        const Index run = first_run_ + 2 * i + v / 2;
        const Index tap = run / gradient_.input_runs, within = run - tap * gradient_.input_runs;
        const Index channel = within * 8 + lane() / 4;
        const Index group = channel / sweep_.channels, c = channel - group * sweep_.channels;
#pragma unroll
        for (int set = 0; set < kColumnTiles; ++set) {
          const Index filter = (first_column_ + set) * 8 + lane() % 4 * 2 + v % 2;
          if (run >= runs() || set >= column_tiles_ || filter / sweep_.filters != group) continue;
          const std::int64_t k =
              std::int64_t(first_group + unit_ * gradient_.unit_groups) * sweep_.filters + filter;
          const Index taps = sweep_.h.taps * sweep_.w.taps;
          visit((k * taps + tap) * sweep_.channels + c, sum_[i][set][0][0][v]);
        }
      }
    }
  }

 private:
  CNN_DEVICE static Index lane() { return static_cast<Index>(threadIdx.x) % 32; }
  CNN_DEVICE Index runs() const { return sweep_.h.taps * sweep_.w.taps * gradient_.input_runs; }

  const Sweep& sweep_;
  const Patch& patch_;
  const Gradient& gradient_;
  Index first_run_, first_column_, unit_, row_tiles_, column_tiles_;
  Index offset_[kRowTiles];
  float sum_[kRowTiles][kColumnTiles][1][1][4] = {};
};

template <class T>
CNN_KERNEL(kThreads, 4)
sum_gradient(const __grid_constant__ Sweep sweep, const __grid_constant__ Patch patch,
             const __grid_constant__ Gradient gradient) {
  CNN_DYNAMIC_SHARED(shared);
  Index rest = static_cast<Index>(blockIdx.x);
  const Bundle<T, 1> bundle(sweep, patch, split(rest, patch.bundles), shared);
  GradientItem<T> item(sweep, patch, gradient,
                       split(rest, gradient.sets) * kWarps + static_cast<Index>(threadIdx.x) / 32);
  const Index part = rest, end = min((part + 1) * gradient.of_part, patch.count);
  const bool works = item.unit() < bundle.groups() / gradient.unit_groups;
  if (threadIdx.x == 0) store(reinterpret_cast<std::uint32_t*>(shared + patch.zeros_at), Chunk{});

  const auto start = [&](Index at) {
    const Site site = site_of(patch, at);
    bundle.start_region(site);
    start_error(sweep, patch, gradient, bundle, site, shared);
  };
  Index at = part * gradient.of_part;
  if (at < end) start(at);
  while (at < end) {
    cp_async_wait<0>();
    __syncthreads();
    if (works) item.add(shared);
    __syncthreads();  // before region and error are overwritten
    if (++at < end) start(at);
  }
  if (!works) return;
  const std::int64_t weights =
      std::int64_t(sweep.groups) * sweep.filters * sweep.channels * sweep.h.taps * sweep.w.taps;
  if (gradient.in_parts) {
    float* to = static_cast<float*>(gradient.sums) + part * weights;
    item.each(bundle.first_group(), [&](std::int64_t element, float sum) { to[element] = sum; });
  } else {
    T* to = static_cast<T*>(gradient.sums);
    item.each(bundle.first_group(), [&](std::int64_t element, float sum) { to[element] = narrow<T>(sum); });
  }
}

template <class T>
void launch_gradient(const Sweep& sweep, const Patch& patch, const Gradient& gradient,
                     std::uintptr_t stream) {
  const std::int64_t blocks = std::int64_t(patch.bundles.divisor) * gradient.sets.divisor * gradient.parts;
  launch(sum_gradient<T>,
         Launch{dim3(static_cast<unsigned>(blocks)), dim3(kThreads), static_cast<std::size_t>(gradient.bytes),
                stream},
         sweep, patch, gradient);
}

}  // namespace cnnkernels::conv::grouped
