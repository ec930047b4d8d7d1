// The fused kernel on Hopper: as fused.cuh, but a warpgroup multiplies its 64 pixels by all filters of the
// tile with wgmma, which reads both operands in shared memory where they were made and copied, and runs by
// itself: CUDA cores make a stage of the intermediate while tensor cores multiply the stage before.
//
//   pixels, filters    two tiles each, or a tile of pixels for each stage that is kept: 128-byte rows
//   swizzled
//                      as SharedTile does, which is what wgmma calls a 128-byte swizzle from 1024 bytes on
#pragma once

#include "../../ptx/sync.cuh"
#include "../../ptx/wgmma.cuh"
#include "../fused.cuh"

namespace cnnkernels::depthwise_separable_conv {

// Both warpgroups have all columns, each half of the rows.
template <class T, int Columns>
class WgmmaEngine {
 public:
  // What this thread has written to tiles is there for wgmma, too.
  CNN_DEVICE void show() { fence_proxy_async(); }

  // Issued only; everyone has shown what is in both tiles.
  CNN_DEVICE void start(const T* pixels, const T* filters) {
    const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
    const std::uint64_t a =
        wgmma_k_major(pixels + warpgroup * kRows * SharedTile<T>::kDepth, Swizzle::span128);
    const std::uint64_t b = wgmma_k_major(filters, Swizzle::span128);
    wgmma_fence(sum_);
#pragma unroll
    for (int byte = 0; byte < kRowBytes; byte += 32)
      wgmma<T, Columns>(sum_, wgmma_advance(a, byte), wgmma_advance(b, byte), true);
    wgmma_commit();
  }

  // All that was started is done.
  CNN_DEVICE void wait() { wgmma_wait<0>(sum_); }

  // Calls visit(row, column, sum) for every output of this thread.
  template <class Visit>
  CNN_DEVICE void each(Visit&& visit) const {
    const int thread = static_cast<int>(threadIdx.x);
    const int first = thread / kWarpgroup * kRows + thread % kWarpgroup / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int v = 0; v < Columns / 2; ++v)
      visit(first + 8 * (v / 2 % 2), 8 * (v / 4) + 2 * (thread % 4) + v % 2, sum_[v]);
  }

 private:
  static constexpr int kWarpgroup = 128, kRows = 64;

  float sum_[Columns / 2] = {};
};

template <class T_, int kTile, Reader kReader>
struct Sm90Config {
  using T = T_;
  static constexpr int kRows = kTiles[kTile].rows, kColumns = kTiles[kTile].columns;
  static_assert(kRows == 128, "a warpgroup has 64 rows");
  using Depthwise = depthwise_separable_conv::Depthwise<T, kRows, kReader>;
  using Weights = typename Depthwise::Weights;
  using Tile = SharedTile<T>;
  using Engine = WgmmaEngine<T, kColumns>;
  static constexpr int kThreads = Depthwise::kThreads;
  static constexpr int kWeights = 2 * kColumns * kRowBytes;  // behind the filters
};

template <class C>
CNN_KERNEL(C::kThreads, 1)
sm90_depthwise_separable(const __grid_constant__ Pair pair, const int pixel_tiles) {
#if CNN_SM90A
  using T = typename C::T;
  CNN_DYNAMIC_SHARED(memory);
  T* pixels = reinterpret_cast<T*>(memory);
  run<C>(pair, memory + pixel_tiles * C::kRows * kRowBytes,
         [&](int stage) { return pixels + (pair.keeps ? stage : stage % 2) * (C::kRows * C::Tile::kDepth); });
#else
  left_out();
#endif
}

template <class C>
void launch_sm90_config(Pair pair, std::int64_t patches, std::uintptr_t stream) {
  constexpr int kDepth = C::Tile::kDepth;
  const std::int64_t column_tiles = pair.keeps ? 1 : (pair.filters + C::kColumns - 1) / C::kColumns;
  const int pixel_tiles = sm90_pixel_tiles(pair.keeps ? (pair.channels + kDepth - 1) / kDepth : 0);
  const std::size_t shared =
      shared_bytes(C::kRows, C::kColumns, sizeof(typename C::T), sizeof(float), pixel_tiles);
  if (patches * column_tiles >= std::int64_t(1) << 31)
    throw_invalid_argument("depthwise_separable_conv2d: more than 2^31 tiles of output");
  pair.column_tiles = FastDivide(column_tiles);
  launch(sm90_depthwise_separable<C>,
         Launch{dim3(static_cast<unsigned>(patches * column_tiles)), dim3(C::kThreads), shared, stream}, pair,
         pixel_tiles);
}

// Turns a plan's numbers into template parameters.
template <class T>
void launch_sm90(const Pair& pair, const Plan& plan, std::int64_t patches, std::uintptr_t stream) {
  const auto with_tile = [&](auto reader) {
    constexpr Reader kReader = decltype(reader)::value;
    switch (plan.tile) {
      case 1:
        return launch_sm90_config<Sm90Config<T, 1, kReader>>(pair, patches, stream);
      case 2:
        return launch_sm90_config<Sm90Config<T, 2, kReader>>(pair, patches, stream);
    }
    throw_invalid_argument("depthwise_separable_conv2d: no such tile for wgmma");
  };
  if (plan.reader == Reader::rows_of_three)
    with_tile(std::integral_constant<Reader, Reader::rows_of_three>{});
  else
    with_tile(std::integral_constant<Reader, Reader::vectors>{});
}

}  // namespace cnnkernels::depthwise_separable_conv
