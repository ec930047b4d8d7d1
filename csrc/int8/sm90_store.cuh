// Where a consumer's INT8 sums go: by way of shared memory, 64 rows by 64 columns at a time, to threads that
// have four neighbouring columns of a row each, as the epilogue takes them. Threads of half a warp store a
// row's 64 outputs side by side, whole sectors of every type.
#pragma once

#include "../gemm/sm90/config.cuh"
#include "../gemm/sm90/loads.cuh"
#include "epilogue.cuh"
#include "product.h"

namespace cnnkernels::int8::sm90 {

using namespace gemm::sm90;

// Which taps of a window lie inside the image (Boxes::window_sums).
struct Inside {
  const std::int32_t* sums = nullptr;
  std::int64_t filters = 0;  // of all groups
  std::int32_t height = 0, width = 0;
  FastDivide dilation_h, dilation_w;
};

struct Arguments : TileSchedule<1> {
  std::int64_t part_elements = 0, row_elements = 0;
  Epilogue epilogue;
  Inside inside;
  void* output = nullptr;
  std::int32_t zero_point = 0;  // of `inside`
  bool unsigned_a = false;
  bool in_parts = false;  // sums of a part as they are go to output + part * part_elements
  bool vectors = false;   // outputs are stored four at a time
  std::uint8_t unused_here[to_next_map(sizeof(Epilogue) + sizeof(Inside) + 31)] = {};
};

// Taps from `begin` up to `end` of an axis whose first lies at `first`.
struct Range {
  int begin, end;
};
CNN_DEVICE Range taps_inside(int first, int size, int count, const FastDivide& dilation) {
  const auto reach = [&](int distance) {  // the first tap that is so far away
    if (distance <= 0) return 0;
    return min(count, static_cast<int>(dilation.quotient(distance + dilation.divisor - 1)));
  };
  return {reach(-first), reach(size - first)};
}

// Of four filters from `place` on, the sum of those taps that the row's window has inside of the image.
CNN_DEVICE Vector<std::int32_t, kRun> sum_inside(const Arguments& a, int row, std::int64_t place, int count) {
  const Phase& phase = a.phase[0];
  const Pixel pixel = pixel_of(a, phase, row);
  const Range r = taps_inside(pixel.h, a.inside.height, phase.r.count, a.inside.dilation_h);
  const Range s = taps_inside(pixel.w, a.inside.width, phase.s.count, a.inside.dilation_w);
  Vector<std::int32_t, kRun> sum{};
  const auto add = [&](int down, int across, std::int32_t sign) {
    if (down == 0 || across == 0) return;  // nothing lies above or left
    const std::int64_t offset = (down * (phase.s.count + 1) + across) * a.inside.filters + place;
    const auto corner = load_run<std::int32_t>(a.inside.sums, offset, count, a.vectors);
#pragma unroll
    for (int i = 0; i < kRun; ++i) sum[i] = wrapping_subtract(sum[i], sign, corner[i]);
  };
  add(r.end, s.end, -1);
  add(r.begin, s.end, 1);
  add(r.end, s.begin, 1);
  add(r.begin, s.begin, -1);
  return sum;
}

template <class C>
class Store {
 public:
  CNN_DEVICE Store(const Arguments& a, unsigned char* staging, int consumer)
      : a_(a), staging_(staging + consumer * kStagingBytes / kConsumers), consumer_(consumer) {}

  CNN_DEVICE void tile(const WorkTile& work, const typename C::Sums& sums) const {
    constexpr int kAcross = C::kN / kWidth;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, mine = thread % kChunks * kRun;
#pragma unroll 1
    for (int which = 0; which < C::kM * kAcross; ++which) {
      const int row = work.first_row + first_row_of<C>(consumer_) + which / kAcross * kBlock;
      const int first = work.first_column + first_column_of<C>(consumer_) + which % kAcross * kWidth;
      const int pixels = a_.phase[0].pixels;
      if (row >= pixels || first >= a_.columns) continue;
      sync();  // everyone is done with what was there
#pragma unroll
      for (int block = 0; block < C::kM * kAcross; ++block)
        if (block == which) write(&sums[block / kAcross][block % kAcross * kWidth / 2]);
      sync();
      const int count = min(a_.columns - first - mine, kRun);
      if (count <= 0) continue;
      const std::int64_t place = std::int64_t(work.group) * a_.columns + first + mine;
      constexpr int kStep = kWarpgroup / kChunks;
      static_assert(kStep % 8 == 0);  // so that a thread's rows are swizzled alike
      const int begin = thread / kChunks;
      auto* const from = reinterpret_cast<std::int32_t*>(staging_ + place_of(begin, mine));
      const auto sums_of = [&](int i) { return from + (i - begin) * (kRowBytes / 4); };
      const Rows rows{begin,
                      min(kBlock, pixels - row),
                      kStep,
                      row + begin,
                      work.part * a_.part_elements + (row + begin) * a_.row_elements + place,
                      kStep * a_.row_elements};
      if (a_.inside.sums != nullptr && work.part == 0) {
#pragma unroll 1
        for (int i = begin; i < rows.end; i += kStep) {
          const auto inside = sum_inside(a_, row + i, place, count);
          auto run = load<kRun>(sums_of(i));
#pragma unroll
          for (int v = 0; v < kRun; ++v) run[v] = wrapping_subtract(run[v], a_.zero_point, inside[v]);
          store(sums_of(i), run);  // which the same thread reads below
        }
      }
      int8::finish(a_.epilogue, Columns(a_.epilogue, place, count, a_.vectors), rows, a_.output,
                   [&](int i) { return load<kRun>(sums_of(i)); });
    }
  }

  CNN_DEVICE void finish() const {}

 private:
  static constexpr int kWidth =
      kStagingBlocks * kRowBytes / static_cast<int>(sizeof(std::int32_t));  // columns
  static constexpr int kChunks = kWidth / kRun;
  static_assert(C::kN % kWidth == 0);

  CNN_DEVICE void sync() const { named_barrier_sync(1 + consumer_, kWarpgroup); }

  // Byte of a sum: blocks of 64 rows by 128 bytes side by side, swizzled.
  CNN_DEVICE static int place_of(int row, int column) {
    constexpr int kColumns = kRowBytes / static_cast<int>(sizeof(std::int32_t));
    const int byte = row * kRowBytes + column % kColumns * static_cast<int>(sizeof(std::int32_t));
    return column / kColumns * kBlockBytes + static_cast<int>(swizzled(byte, kSwizzle));
  }

  // Thread t has rows 16 * (t / 32) + t % 32 / 4 and 8 below, of every 8 columns two (wgmma.cuh).
  CNN_DEVICE void write(const std::int32_t* sums) const {
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup, lane = thread % 32;
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = thread / 32 * 16 + lane / 4 + 8 * half;
        store(reinterpret_cast<std::int32_t*>(staging_ + place_of(row, j * 8 + lane % 4 * 2)),
              Vector<std::int32_t, 2>{sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]});
      }
    }
  }

  const Arguments& a_;
  unsigned char* staging_;
  const int consumer_;
};

}  // namespace cnnkernels::int8::sm90
