// The kernel: for a patch of output pixels and a range of output channels, stage by stage of the
// intermediate's channels, makes the intermediate on CUDA cores in shared memory and multiplies it by the
// pointwise filters there. Nothing of it reaches global memory unless it is to be saved.
#pragma once

#include "../common/launch.h"
#include "../ptx/cp_async.cuh"
#include "engine.cuh"
#include "epilogue.cuh"
#include "launchers.h"

namespace cnnkernels::depthwise_separable_conv {

// In: what the engine multiplies. T: what lies in memory.
template <class In, int kTile, Reader kReader>
struct Config {
  static constexpr bool kTensorCores = !std::is_same_v<In, double> && !std::is_same_v<In, float>;
  using T = std::conditional_t<std::is_same_v<In, tf32>, float, In>;
  static constexpr int kRows = kTiles[kTile].rows, kColumns = kTiles[kTile].columns;
  using Depthwise = depthwise_separable_conv::Depthwise<T, kRows, kReader>;
  using Weights = typename Depthwise::Weights;
  using Tile = SharedTile<T>;
  using Engine =
      typename std::conditional_t<kTensorCores, std::type_identity<MmaEngine<In, T, kRows, kColumns>>,
                                  std::type_identity<FmaEngine<T, kRows, kColumns>>>::type;
  static constexpr int kThreads = Depthwise::kThreads;
  static constexpr int kBlocks = kThreads == 128 ? 2 : 1;    // an SM should hold: bounds the registers
  static constexpr int kWeights = 2 * kColumns * kRowBytes;  // where the depthwise weights lie
  static constexpr int kPixels = working_bytes(kRows, kColumns, sizeof(T), sizeof(Accumulator<T>));
};

// Brings the filters of a stage: rows of kRowBytes from `channel` on, zeros beyond the last channel or
// filter.
template <class T, int Columns, int Threads>
CNN_DEVICE void start_filters(const Pair& pair, T* tile, int first_filter, int channel) {
  constexpr int kChunk = SharedTile<T>::kChunk;
  const T* weights = static_cast<const T*>(pair.at.pointwise_weight);
  if (pair.pointwise_vectors) {
#pragma unroll
    for (int i = 0; i < Columns * kChunks / Threads; ++i) {
      const int piece = static_cast<int>(threadIdx.x) + i * Threads;
      const int row = piece / kChunks, chunk = piece % kChunks;
      const int filter = first_filter + row, m = channel + chunk * kChunk;
      const bool valid = filter < pair.filters && m < pair.channels;
      const T* from = valid ? weights + std::int64_t(filter) * pair.channels + m : weights;
      cp_async<kChunkBytes>(tile + SharedTile<T>::chunk(row, chunk), from, valid);
    }
  } else {
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < Columns * SharedTile<T>::kDepth; i += Threads) {
      const int row = i / SharedTile<T>::kDepth, depth = i % SharedTile<T>::kDepth;
      const int filter = first_filter + row, m = channel + depth;
      const bool valid = filter < pair.filters && m < pair.channels;
      tile[SharedTile<T>::chunk(row, depth / kChunk) + depth % kChunk] =
          valid ? weights[std::int64_t(filter) * pair.channels + m] : T{};
    }
  }
}

// What a thread has just written to shared memory, activated and rounded again.
template <class T>
CNN_DEVICE void activate_chunk(Activation which, double slope, T* chunk) {
  auto values = load<SharedTile<T>::kChunk>(chunk);
#pragma unroll
  for (int e = 0; e < SharedTile<T>::kChunk; ++e)
    values[e] = narrow<T>(activate(which, widen(values[e]), static_cast<Accumulator<T>>(slope)));
  store(chunk, values);
}

// z of the pixels that a thread has just made in a tile becomes a(z), and goes where it is saved.
template <class T, class Depthwise>
CNN_DEVICE void finish_pixels(const Pair& pair, const Depthwise& depthwise, T* made, int channel, bool save) {
#pragma unroll 1  // in shared memory, where a loop can index it: this is much code
  for (int i = 0; i < kStrip; ++i) {
    const int row = depthwise.row_of(i);
    T* chunk = made + SharedTile<T>::chunk(row, depthwise.chunk());
    if (save) depthwise.save(row, channel, load<SharedTile<T>::kChunk>(chunk));
    if (pair.first != Activation::none) activate_chunk(pair.first, pair.slope, chunk);
  }
}

// A block's work. pixels_of(stage): where a stage's pixels lie. `working`: shared memory behind all pixels,
// or all there is where they are made anew, for the filters, the depthwise weights and then the epilogue. An
// engine multiplies at once, or starts what multiplies by itself until it is waited for: CUDA cores make a
// stage of the intermediate meanwhile.
template <class C, class PixelsOf>
CNN_DEVICE void run(const Pair& pair, unsigned char* working, const PixelsOf& pixels_of) {
  using T = typename C::T;
  using A = Accumulator<T>;
  constexpr int kChannels = C::Tile::kDepth;
  T* filters = reinterpret_cast<T*>(working);
  A* weights = reinterpret_cast<A*>(working + C::kWeights);
  const auto filters_of = [&](int stage) { return filters + stage % 2 * (C::kColumns * kChannels); };

  std::uint32_t column_tile;
  const std::uint32_t patch = pair.column_tiles.divmod(blockIdx.x, column_tile);
  const int begin = static_cast<int>(column_tile) * C::kColumns;
  const int end = pair.keeps ? pair.filters : begin + 1;
  const bool save = pair.at.intermediate != nullptr && begin == 0;
  typename C::Depthwise depthwise(pair, patch);

#pragma unroll 1
  for (int first_filter = begin; first_filter < end; first_filter += C::kColumns) {
    const bool makes = first_filter == begin;  // later column tiles find the pixels made
    typename C::Weights next;
    typename C::Engine engine;
    start_filters<T, C::kColumns, C::kThreads>(pair, filters_of(0), first_filter, 0);
    cp_async_commit();
    if (makes) {
      next.load(pair, 0, 0);
      next.store(pair, weights, 0, 0);
    }
#pragma unroll 1
    for (int stage = 0, channel = 0; channel < pair.channels; ++stage, channel += kChannels) {
      __syncthreads();  // the stage's depthwise weights are there; so are free pixels for it
      if (makes) {
        A sums[kStrip][C::Tile::kChunk];
        depthwise.sum(sums, weights, channel);
        T* made = pixels_of(stage);
        depthwise.finish(sums, channel, [&](int row, int chunk, const auto& z) {
          store(made + C::Tile::chunk(row, chunk), z);
        });
        if (save || pair.first != Activation::none) finish_pixels(pair, depthwise, made, channel, save);
      }
      cp_async_wait<0>();
      engine.show();
      engine.wait();    // the stage before: its pixels and filters may be written again
      __syncthreads();  // everyone's pixels and filters are there; the depthwise weights are done with
      const int ahead = channel + kChannels;
      if (ahead < pair.channels) {
        start_filters<T, C::kColumns, C::kThreads>(pair, filters_of(stage + 1), first_filter, ahead);
        cp_async_commit();
        if (makes) next.load(pair, ahead, 0);
      }
      engine.start(pixels_of(stage), filters_of(stage));
      if (makes && ahead < pair.channels)
        next.store(pair, weights, ahead, 0);  // the loads had time to arrive
    }
    engine.wait();
    __syncthreads();  // all but the pixels becomes the epilogue's
    store_tile<T, C::kRows, C::kColumns, C::kThreads>(pair, engine, patch, first_filter, working);
    if (pair.keeps) __syncthreads();  // and is the filters' again
  }
}

template <class C>
CNN_KERNEL(C::kThreads, C::kBlocks)
depthwise_separable(const __grid_constant__ Pair pair) {
  using T = typename C::T;
  CNN_DYNAMIC_SHARED(memory);
  T* pixels = reinterpret_cast<T*>(memory + C::kPixels);
  run<C>(pair, memory,
         [&](int stage) { return pixels + (pair.keeps ? stage : 0) * (C::kRows * C::Tile::kDepth); });
}

template <class C>
void launch_config(Pair pair, std::int64_t patches, std::uintptr_t stream) {
  constexpr int kDepth = C::Tile::kDepth;
  const std::int64_t column_tiles = pair.keeps ? 1 : (pair.filters + C::kColumns - 1) / C::kColumns;
  const int stages = pair.keeps ? (pair.channels + kDepth - 1) / kDepth : 1;
  const std::size_t shared =
      shared_bytes(C::kRows, C::kColumns, sizeof(typename C::T), sizeof(Accumulator<typename C::T>), stages);
  if (patches * column_tiles >= std::int64_t(1) << 31)
    throw_invalid_argument("depthwise_separable_conv2d: more than 2^31 tiles of output");
  pair.column_tiles = FastDivide(column_tiles);
  launch(depthwise_separable<C>,
         Launch{dim3(static_cast<unsigned>(patches * column_tiles)), dim3(C::kThreads), shared, stream},
         pair);
}

// Turns a plan's numbers into template parameters.
template <class In>
void launch_fused(const Pair& pair, const Plan& plan, std::int64_t patches, std::uintptr_t stream) {
  const auto with_reader = [&](auto tile, auto reader) {
    constexpr int kTile = decltype(tile)::value;
    constexpr Reader kReader = decltype(reader)::value;
    using C = Config<In, kTile, kReader>;
    if constexpr (kernel_exists(C::kTensorCores, sizeof(typename C::T), kTile, kReader)) {
      launch_config<C>(pair, patches, stream);
    } else {
      throw_invalid_argument("depthwise_separable_conv2d: no such kernel");
    }
  };
  const auto with_tile = [&](auto tile) {
    switch (plan.reader) {
      case Reader::rows_of_three:
        return with_reader(tile, std::integral_constant<Reader, Reader::rows_of_three>{});
      case Reader::vectors:
        return with_reader(tile, std::integral_constant<Reader, Reader::vectors>{});
      case Reader::elements:
        return with_reader(tile, std::integral_constant<Reader, Reader::elements>{});
    }
  };
  switch (plan.tile) {
    case 0:
      return with_tile(std::integral_constant<int, 0>{});
    case 1:
      return with_tile(std::integral_constant<int, 1>{});
    case 2:
      return with_tile(std::integral_constant<int, 2>{});
  }
  throw_invalid_argument("depthwise_separable_conv2d: no such tile");
}

}  // namespace cnnkernels::depthwise_separable_conv
