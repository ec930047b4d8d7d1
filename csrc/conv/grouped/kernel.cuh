// The kernel of grouped.h: a sweep of a bundle's filters over patch after patch.
#pragma once

#include <cstring>
#include <type_traits>

#include "../../common/launch.h"
#include "../../ptx/convert.cuh"
#include "../../ptx/cp_async.cuh"
#include "../../ptx/ldmatrix.cuh"
#include "../../ptx/mma.cuh"
#include "../epilogue.cuh"
#include "grouped.h"

namespace cnnkernels::conv::grouped {

// A 16-byte piece of the image or of a filter: what one lane reads at a time.
using Chunk = Vector<std::uint32_t, 4>;

CNN_DEVICE Chunk chunk_at(const unsigned char* from) {
  return load<4>(reinterpret_cast<const std::uint32_t*>(from));
}

// Of a table of places: none, zeros are read instead.
inline constexpr Index kNowhere = -1;

// Where a patch lies: its image, and its first pixel of the result.
struct Site {
  Index image, row, column;
};

CNN_DEVICE Site site_of(const Patch& patch, Index at) {
  Site site;
  site.column = split(at, patch.across) * value(patch.columns);
  site.row = split(at, patch.down) * patch.rows;
  site.image = at;
  return site;
}

// The sweep's number of a tap of the filter in memory; -1 if the sweep leaves it out.
CNN_DEVICE Index tap_of(const SweepAxis& axis, Index in_memory, bool turned) {
  const Index beyond = in_memory - axis.first_tap;
  if (beyond < 0 || beyond % axis.stride_of_taps != 0) return -1;
  const Index tap = beyond / axis.stride_of_taps;
  return turned ? axis.taps - 1 - tap : tap;
}

template <class T, int kShare>
class Bundle {
 public:
  static constexpr int kChunk = kChunkBytes / sizeof(T);

  CNN_DEVICE Bundle(const Sweep& sweep, const Patch& patch, Index bundle, unsigned char* shared)
      : sweep_(sweep),
        patch_(patch),
        shared_(shared),
        first_group_(bundle * patch.groups),
        groups_(min(patch.groups, sweep.groups - bundle * patch.groups)) {}

  CNN_DEVICE Index first_group() const { return first_group_; }
  CNN_DEVICE Index groups() const { return groups_; }
  CNN_DEVICE Index units() const { return groups_ / kShare; }
  CNN_DEVICE Index first_filter() const { return first_group_ * sweep_.filters; }

  // The filters as the instructions read them: for each unit and filter a row of chunks, tap after tap, of
  // the groups that share a chunk side by side. What is left of the last step stays zero, and so does the
  // chunk that the image has there.
  CNN_DEVICE void clear() const {
    const Vector<std::uint32_t, 4> zeros{};
    for (Index i = patch_.zeros_at + thread() * kChunkBytes; i < patch_.staging_at;
         i += kThreads * kChunkBytes)
      store(reinterpret_cast<std::uint32_t*>(shared_ + i), zeros);
  }
  CNN_DEVICE void fill_filters() const {
    const Index of_group =
        value(sweep_.filter_k) * value(sweep_.filter_r) * value(sweep_.filter_s) * value(sweep_.filter_c);
    const T* from = static_cast<const T*>(sweep_.filter) + std::int64_t(first_group_) * of_group;
    for (Index i = thread(); i < groups_ * of_group; i += kThreads) {
      Index rest = i;
      const Index at_c = split(rest, sweep_.filter_c);
      const Index tap_w = tap_of(sweep_.w, split(rest, sweep_.filter_s), sweep_.turned);
      const Index tap_h = tap_of(sweep_.h, split(rest, sweep_.filter_r), sweep_.turned);
      const Index at_k = split(rest, sweep_.filter_k), group = rest;
      if (tap_w < 0 || tap_h < 0) continue;
      const Index filter = sweep_.turned ? at_c : at_k, channel = sweep_.turned ? at_k : at_c;
      const Index row = group / kShare * patch_.filter_rows + filter;
      const Index tap = tap_h * sweep_.w.taps + tap_w;
      const Index element = group % kShare * sweep_.channels + channel;
      unsigned char* to = shared_ + patch_.filters_at + row * patch_.filter_pitch;
      reinterpret_cast<T*>(to)[tap * patch_.unit_chunks * kChunk + element] = from[i];
    }
  }

  // For each chunk of the reduction, how far it lies from a pixel's first; beyond the last there is none.
  CNN_DEVICE void fill_table() const {
    const Index taps = sweep_.h.taps * sweep_.w.taps, all = patch_.steps * kStep;
    auto* table = reinterpret_cast<Index*>(shared_ + patch_.table_at);
    for (Index i = thread(); i < all; i += kThreads) {
      const Index tap = i / patch_.unit_chunks, chunk = i - tap * patch_.unit_chunks;
      const Index tap_h = tap / max(sweep_.w.taps, 1), tap_w = tap - tap_h * sweep_.w.taps;
      table[i] = tap < taps ? tap_h * sweep_.h.tap_step * patch_.row_pitch +
                                  tap_w * sweep_.w.tap_step * patch_.pixel_pitch + chunk * kChunkBytes
                            : kNowhere;
    }
  }

  CNN_DEVICE void start_region(const Site& site) const {
    const T* image = static_cast<const T*>(sweep_.image);
    const T* from = image + site.image * sweep_.image_steps.n + first_group_ * sweep_.channels;
    const Index first_h = sweep_.h.origin + site.row * sweep_.h.step;
    const Index first_w = sweep_.w.origin + site.column * sweep_.w.step;
    const Index present = groups_ * sweep_.channels / kChunk;
    const Index all = patch_.region_rows * value(patch_.region_columns) * value(patch_.chunks);
    for (Index i = thread(); i < all; i += kThreads) {
      Index row = i;
      const Index chunk = split(row, patch_.chunks), column = split(row, patch_.region_columns);
      if (chunk >= present) continue;
      const Index h = first_h + row, w = first_w + column;
      const bool inside = h >= 0 && h < sweep_.h.size && w >= 0 && w < sweep_.w.size;
      const T* source = from + h * sweep_.image_steps.h + w * sweep_.image_steps.w + chunk * kChunk;
      cp_async<kChunkBytes>(
          shared_ + row * patch_.row_pitch + column * patch_.pixel_pitch + chunk * kChunkBytes,
          inside ? source : image, inside);
    }
    cp_async_commit();
  }

  // Where a pixel's first window element lies, from the region's beginning; pixels past the last repeat the
  // first.
  CNN_DEVICE Index place_of(Index pixel) const {
    Index row = pixel < patch_.pixels ? pixel : 0;
    const Index column = split(row, patch_.columns);
    return row * sweep_.h.step * patch_.row_pitch + column * sweep_.w.step * patch_.pixel_pitch;
  }

  // The chunk of a window; zeros past the last.
  CNN_DEVICE const unsigned char* window(Index place, Index offset) const {
    return shared_ + (offset == kNowhere ? patch_.zeros_at : place + offset);
  }
  CNN_DEVICE Index offset_of(Index chunk) const {
    return reinterpret_cast<const Index*>(shared_ + patch_.table_at)[chunk];
  }
  CNN_DEVICE const unsigned char* filter(Index unit, Index row, Index chunk) const {
    return shared_ + patch_.filters_at + (unit * patch_.filter_rows + row) * patch_.filter_pitch +
           chunk * kChunkBytes;
  }
  CNN_DEVICE unsigned char* staging() const { return shared_ + patch_.staging_at; }

  template <class Staged, class Finish>
  CNN_DEVICE void store_patch(const Site& site, const Finish& finish) const {
    const Index present = groups_ * sweep_.filters / kChunk,
                all = patch_.pixels * value(patch_.result_chunks);
    const std::int64_t first = site.image * sweep_.result_steps.n + first_filter();
#pragma unroll 1
    for (Index i = thread(); i < all; i += kThreads) {
      Index pixel = i;
      const Index chunk = split(pixel, patch_.result_chunks);
      Index row = pixel;
      const Index column = site.column + split(row, patch_.columns);
      row += site.row;
      if (chunk >= present || row >= sweep_.h.results || column >= sweep_.w.results) continue;
      const std::int64_t offset =
          first + row * sweep_.result_steps.h + column * sweep_.result_steps.w + chunk * kChunk;
      const auto* from = reinterpret_cast<const Staged*>(staging() + pixel * patch_.staging_pitch);
      store(static_cast<T*>(sweep_.result) + offset, finish(load_run<kChunk>(from + chunk * kChunk), offset));
    }
  }

 private:
  static constexpr Index kStep = chunks_of_step(kShare);
  CNN_DEVICE static Index thread() { return static_cast<Index>(threadIdx.x); }

  const Sweep& sweep_;
  const Patch& patch_;
  unsigned char* shared_;
  Index first_group_, groups_;
};

// What one warp sums at a time: kPixelTiles times 16 pixels by the filters of one unit, 8 of each of the
// groups that share its chunks, or up to 16 of its only group.
template <class T, int kShare>
class Item {
 public:
  static constexpr int kSets = kShare == 1 ? 2 : kShare;  // of 8 filters

  CNN_DEVICE Item(const Sweep& sweep, const Patch& patch, Index at) : sweep_(sweep), patch_(patch) {
    pass_ = split(at, patch.passes);
    first_pixel_ = split(at, patch.pixel_groups) * kPixelTiles * kPixelTile;
    unit_ = at;
    sets_ = kShare > 1 || pass_ * 2 * kFilterTile + kFilterTile < sweep.filters ? kSets : 1;
  }

  CNN_DEVICE void multiply(const Bundle<T, kShare>& bundle) {
    if constexpr (kShare == 1) {
      multiply_runs(bundle);
    } else {
      multiply_taps(bundle);
    }
  }

  // Puts scale (sum + bias) + shift where it waits to be stored.
  template <class Staged>
  CNN_DEVICE void stage(const Epilogue& epilogue, Index first_filter, unsigned char* staging) const {
#pragma unroll
    for (int set = 0; set < kSets; ++set) {
      const Index within = kShare == 1 ? (2 * pass_ + set) * kFilterTile + lane() % 4 * 2
                                       : pass_ * kFilterTile + lane() % 4 * 2;
      if (within >= sweep_.filters) continue;
      const Index filter = (kShare == 1 ? unit_ : unit_ * kShare + set) * sweep_.filters + within;
      float bias[2], scale[2], shift[2];
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const auto number = [&](const void* all, float otherwise) {
          return all != nullptr ? widen(static_cast<const T*>(all)[first_filter + filter + v]) : otherwise;
        };
        bias[v] = number(epilogue.bias, 0);
        scale[v] = number(epilogue.scale, 1);
        shift[v] = number(epilogue.shift, 0);
      }
      const bool scaled = epilogue.scale != nullptr || epilogue.shift != nullptr;
#pragma unroll
      for (int i = 0; i < kPixelTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Index pixel = first_pixel_ + i * kPixelTile + half * 8 + lane() / 4;
          if (pixel >= patch_.pixels) continue;
          Vector<Staged, 2> both;
#pragma unroll
          for (int v = 0; v < 2; ++v) {
            float sum = sum_[i][set][0][0][2 * half + v] + bias[v];
            if (scaled) sum = multiply_add(scale[v], sum, shift[v]);
            both[v] = narrow<Staged>(sum);
          }
          auto* to = reinterpret_cast<Staged*>(staging + pixel * patch_.staging_pitch);
          store(to + filter, both);
        }
      }
    }
  }

 private:
  CNN_DEVICE static Index lane() { return static_cast<Index>(threadIdx.x) % 32; }

  // A unit is one group: a step takes two chunks, each of 16 pixels and 16 filters, by ldmatrix.
  CNN_DEVICE void multiply_runs(const Bundle<T, kShare>& bundle) {
    const Index first_chunk = unit_ * patch_.unit_chunks * kChunkBytes;
    Index place[kPixelTiles];
#pragma unroll
    for (int i = 0; i < kPixelTiles; ++i)
      place[i] = bundle.place_of(first_pixel_ + i * kPixelTile + lane() % 16) + first_chunk;
    const Index row = pass_ * 2 * kFilterTile + lane() % 8 + (sets_ == 2 ? lane() / 16 * kFilterTile : 0);
    const unsigned char* filter = bundle.filter(unit_, row, lane() / 8 % 2);
#pragma unroll 1
    for (Index step = 0; step < patch_.steps; ++step) {
      const Index offset = bundle.offset_of(2 * step + lane() / 16);
      std::uint32_t filters[4], pixels[1][4];
      ldmatrix_x4(filters, filter + 2 * step * kChunkBytes);
      const std::uint32_t first[1][2] = {{filters[0], filters[1]}}, second[1][2] = {{filters[2], filters[3]}};
#pragma unroll
      for (int i = 0; i < kPixelTiles; ++i) {
        ldmatrix_x4(pixels[0], bundle.window(place[i], offset));
        mma_tile<T>(sum_[i][0], pixels, first);
        if (sets_ == 2) mma_tile<T>(sum_[i][1], pixels, second);
      }
    }
  }

  // A unit is a chunk that two or four groups share. Lane 4 g + c reads whole chunks of pixel g, tap c of
  // four. A group's half or quarter of it is what an instruction wants of that lane, for some order of the
  // reduction, and the filters are read in the same order.
  CNN_DEVICE void multiply_taps(const Bundle<T, kShare>& bundle) {
    constexpr int kReads = kShare / 2;  // chunks of a lane a step
    Index place[kPixelTiles][2];
#pragma unroll
    for (int i = 0; i < kPixelTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        place[i][half] =
            bundle.place_of(first_pixel_ + i * kPixelTile + half * 8 + lane() / 4) + unit_ * kChunkBytes;
    }
    const unsigned char* filter = bundle.filter(unit_, pass_ * kFilterTile + lane() / 4, lane() % 4);
#pragma unroll 1
    for (Index step = 0; step < patch_.steps; ++step) {
      Index offset[kReads];
      Chunk filters[kReads];
#pragma unroll
      for (int read = 0; read < kReads; ++read) {
        const Index chunk = (step * kReads + read) * 4;
        offset[read] = bundle.offset_of(chunk + lane() % 4);
        filters[read] = chunk_at(filter + chunk * kChunkBytes);
      }
#pragma unroll
      for (int i = 0; i < kPixelTiles; ++i) {
        Chunk pixels[kReads][2];
#pragma unroll
        for (int read = 0; read < kReads; ++read) {
#pragma unroll
          for (int half = 0; half < 2; ++half)
            pixels[read][half] = chunk_at(bundle.window(place[i][half], offset[read]));
        }
#pragma unroll
        for (int group = 0; group < kShare; ++group) {
          // Of two groups each has two words of the only chunk, of four one word of either.
          constexpr int kLast = kReads - 1;
          const int first = kShare == 2 ? 2 * group : group, second = kShare == 2 ? 2 * group + 1 : group;
          const std::uint32_t a[1][4] = {
              {pixels[0][0][first], pixels[0][1][first], pixels[kLast][0][second], pixels[kLast][1][second]}};
          const std::uint32_t b[1][2] = {{filters[0][first], filters[kLast][second]}};
          mma_tile<T>(sum_[i][group], a, b);
        }
      }
    }
  }

  const Sweep& sweep_;
  const Patch& patch_;
  Index pass_, first_pixel_, unit_;
  int sets_;
  float sum_[kPixelTiles][kSets][1][1][4] = {};
};

template <class T, int kShare>
CNN_KERNEL(kThreads, blocks_of(kShare))
sweep_groups(const __grid_constant__ Sweep sweep, const __grid_constant__ Patch patch,
             const __grid_constant__ Epilogue epilogue) {
  CNN_DYNAMIC_SHARED(shared);
  Index at = static_cast<Index>(blockIdx.x);
  const Bundle<T, kShare> bundle(sweep, patch, split(at, patch.bundles), shared);
  const Index items = bundle.units() * value(patch.pixel_groups) * value(patch.passes);
  const bool whole = by_output(epilogue);

  bundle.start_region(site_of(patch, at));
  bundle.clear();
  __syncthreads();
  bundle.fill_filters();
  bundle.fill_table();
  while (at < patch.count) {
    cp_async_wait<0>();
    __syncthreads();  // the region is here, and what was staged before is stored
#pragma unroll 1
    for (Index i = static_cast<Index>(threadIdx.x) / 32; i < items; i += kWarps) {
      Item<T, kShare> item(sweep, patch, i);
      item.multiply(bundle);
      if (whole) {
        item.template stage<float>(epilogue, bundle.first_filter(), bundle.staging());
      } else {
        item.template stage<T>(epilogue, bundle.first_filter(), bundle.staging());
      }
    }
    __syncthreads();  // all is staged, and the region may be overwritten
    const Site site = site_of(patch, at);
    at += patch.workers;
    if (at < patch.count) bundle.start_region(site_of(patch, at));
    if (whole) {
      bundle.template store_patch<float>(site, Finish<T>{static_cast<const T*>(epilogue.residual),
                                                         epilogue.activation, float(epilogue.slope)});
    } else {
      bundle.template store_patch<T>(site, AsItIs{});
    }
  }
}

template <class In>
void launch_sweep(const Sweep& sweep, const Patch& patch, const Epilogue& epilogue, std::uintptr_t stream) {
  const auto blocks = static_cast<unsigned>(std::int64_t(patch.workers) * patch.bundles.divisor);
  const Launch how{dim3(blocks), dim3(kThreads), static_cast<std::size_t>(patch.bytes), stream};
  switch (groups_of_chunk(sweep.channels, Element{DType::float16, false})) {
    case 1:
      return launch(sweep_groups<In, 1>, how, sweep, patch, epilogue);
    case 2:
      return launch(sweep_groups<In, 2>, how, sweep, patch, epilogue);
    default:
      return launch(sweep_groups<In, 4>, how, sweep, patch, epilogue);
  }
}

}  // namespace cnnkernels::conv::grouped
