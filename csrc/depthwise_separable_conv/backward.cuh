// The backward kernel. A block has one stage of the intermediate's channels and a part of the pixels'
// patches. For each patch it makes the intermediate z anew in shared memory (or reads what was saved), reads
// the error g of y once, and makes of the three
//
//   the intermediate's error  (wp^T g) a'(z), which goes to global memory
//   the pointwise filters' gradient, g times a(z) over the pixels: sums stay in registers over all patches
//
// z and a(z) never reach global memory. Blocks beside each other have other filters of the gradient; the
// first of them has the intermediate's error. Parts of the gradient are added in a fixed order afterwards.
#pragma once

#include "../common/launch.h"
#include "../common/shared_limits.h"
#include "../ptx/cp_async.cuh"
#include "backward_launchers.h"
#include "backward_sums.cuh"

namespace cnnkernels::depthwise_separable_conv {

template <class T_, Reader kReader>
struct BackwardConfig {
  using T = T_;
  using Tile = SharedTile<T>;
  using Depthwise = depthwise_separable_conv::Depthwise<T, kBackwardRows, kReader>;
  using Weights = typename Depthwise::Weights;
  static constexpr bool kTensorCores = sizeof(T) == 2;
  using ErrorSums =
      typename std::conditional_t<kTensorCores, std::type_identity<MmaErrorSums<T, kBackwardRows>>,
                                  std::type_identity<FmaErrorSums<T, kBackwardRows>>>::type;
  using WeightSums =
      typename std::conditional_t<kTensorCores, std::type_identity<MmaWeightSums<T, kBackwardRows>>,
                                  std::type_identity<FmaWeightSums<T, kBackwardRows>>>::type;
  static constexpr bool kVectors = kReader != Reader::elements;
  static constexpr int kThreads = Depthwise::kThreads;

  // Shared memory: two tiles of the error and of the filters, a(z), z, where pixels lie, depthwise weights.
  static constexpr int kTileBytes = kBackwardRows * kRowBytes, kFilterBytes = Tile::kDepth * kRowBytes;
  static constexpr int kFilters = 2 * kTileBytes, kMiddle = kFilters + 2 * kFilterBytes;
  static constexpr int kIntermediate = kMiddle + kTileBytes, kPlaces = kIntermediate + kTileBytes;
  static constexpr int kWeights = kPlaces + 2 * kBackwardRows * static_cast<int>(sizeof(std::int64_t));
  static constexpr int kSharedBytes = kWeights + Weights::kBytes;
  static_assert(kSharedBytes <= kEveryBlockBytes);
};

inline constexpr std::int64_t kNowhere = -1;

// Brings `rows` rows of kRowBytes to a tile, zeros beyond the `count` elements that a row has and where
// start_of(row) is kNowhere; `step` elements lie from one to the next, which is 1 where vectors may be read.
// `down`: neighbouring threads take neighbouring rows.
template <class T, int Threads, class Start>
CNN_DEVICE void start_tile(T* tile, int rows, const T* from, int count, std::int64_t step, bool vectors,
                           bool down, Start&& start_of) {
  constexpr int kChunk = SharedTile<T>::kChunk, kDepth = SharedTile<T>::kDepth;
  if (vectors) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * kChunks; i += Threads) {
      const int row = i / kChunks, chunk = i % kChunks;
      const std::int64_t start = start_of(row);
      const bool valid = start != kNowhere && chunk * kChunk < count;
      cp_async<kChunkBytes>(tile + SharedTile<T>::chunk(row, chunk),
                            valid ? from + start + chunk * kChunk : from, valid);
    }
  } else {
    for (int i = static_cast<int>(threadIdx.x); i < rows * kDepth; i += Threads) {
      const int row = down ? i % rows : i / kDepth, column = down ? i / rows : i % kDepth;
      const std::int64_t start = start_of(row);
      tile[SharedTile<T>::chunk(row, column / kChunk) + column % kChunk] =
          start != kNowhere && column < count ? from[start + column * step] : T{};
    }
  }
}

template <class C>
class BackwardBlock {
 public:
  using T = typename C::T;
  using A = Accumulator<T>;
  using Tile = typename C::Tile;

  CNN_DEVICE BackwardBlock(const Pair& pair, const Errors& errors, unsigned char* memory, int channel)
      : pair_(pair), errors_(errors), memory_(memory), channel_(channel) {}

  // Those of the depthwise weights that the sums of a patch begin with.
  CNN_DEVICE void load_weights() const {
    typename C::Weights first;
    first.load(pair_, channel_, 0);
    first.store(pair_, weights(), channel_, 0);
  }

  // Where the patch's pixels begin in y and in the intermediate.
  CNN_DEVICE void place(std::uint32_t patch) const {
    const int row = static_cast<int>(threadIdx.x);
    if (row >= kBackwardRows) return;
    const Pixel pixel = pixel_at(pair_, patch, row);
    const auto offset = [&](const Strides& s) {
      return pixel.exists ? pixel.n * s.n + pixel.p * s.h + pixel.q * s.w : kNowhere;
    };
    of_output()[row] = offset(pair_.y);
    of_intermediate()[row] = offset(pair_.z);
  }

  CNN_DEVICE void start(int turn, int filter, bool with_filters) const {
    start_tile<T, C::kThreads>(error(turn), kBackwardRows,
                               static_cast<const T*>(errors_.of_output) + filter * pair_.y.c,
                               pair_.filters - filter, pair_.y.c, errors_.output_vectors, pair_.planes,
                               [&](int row) { return of_output()[row]; });
    if (with_filters) {
      const std::int64_t first = std::int64_t(filter) * pair_.channels + channel_;
      start_tile<T, C::kThreads>(
          filters(turn), Tile::kDepth, static_cast<const T*>(pair_.at.pointwise_weight) + first,
          pair_.channels - channel_, 1, pair_.pointwise_vectors, false, [&](int row) {
            return filter + row < pair_.filters ? std::int64_t(row) * pair_.channels : kNowhere;
          });
    }
    cp_async_commit();
  }

  // z of the patch, and a(z), zero where there is no pixel. Each thread makes the chunks that it takes again
  // in finish(). Without an activation the two are one.
  CNN_DEVICE void make_middle(std::uint32_t patch) const {
    if (errors_.saved != nullptr) {
#pragma unroll
      for (int i = 0; i < kStrip; ++i) {
        const int row = Half::row_of(i);
        store(intermediate() + Tile::chunk(row, Half::chunk()), read_saved(of_intermediate()[row]));
      }
    } else {
      Half depthwise(pair_, patch);
      A sums[kStrip][Tile::kChunk];
      depthwise.sum(sums, weights(), channel_);
      depthwise.finish(sums, channel_, [&](int row, int chunk, const auto& z) {
        store(intermediate() + Tile::chunk(row, chunk), z);
      });
    }
#pragma unroll 1  // an activation is much code: here it stands once
    for (int i = 0; i < kStrip; ++i) {
      const int row = Half::row_of(i), at = Tile::chunk(row, Half::chunk());
      auto values = load<Tile::kChunk>(intermediate() + at);
#pragma unroll
      for (int e = 0; e < Tile::kChunk; ++e) {
        values[e] = of_intermediate()[row] == kNowhere
                        ? T{}
                        : narrow<T>(activate(pair_.first, widen(values[e]), slope()));
      }
      store(middle() + at, values);
    }
  }

  // The sums' tile becomes the intermediate's error where the first tile of y's error was.
  CNN_DEVICE void finish(const typename C::ErrorSums& sums) const {
    T* staging = error(0);
    __syncthreads();  // everyone is done with it
    sums.each([&](int row, int channel, A sum) {
      staging[Tile::chunk(row, channel / Tile::kChunk) + channel % Tile::kChunk] = narrow<T>(sum);
    });
    __syncthreads();
    const int first = channel_ + Half::chunk() * Tile::kChunk;
    T* to = static_cast<T*>(errors_.of_intermediate) + first * pair_.z.c;
#pragma unroll 1
    for (int i = 0; i < kStrip; ++i) {
      const int row = Half::row_of(i), at = Tile::chunk(row, Half::chunk());
      const std::int64_t start = of_intermediate()[row];
      if (start == kNowhere || first >= pair_.channels) continue;
      auto values = load<Tile::kChunk>(staging + at);
      if (pair_.first != Activation::none) {
        const auto z = load<Tile::kChunk>(intermediate() + at);
#pragma unroll
        for (int e = 0; e < Tile::kChunk; ++e) {
          const A slope_here = activate_derivative(pair_.first, widen(z[e]), slope());
          values[e] = slope_here == A(0) ? T{} : narrow<T>(widen(values[e]) * slope_here);
        }
      }
      if constexpr (C::kVectors) {
        store(to + start, values);
      } else {
#pragma unroll
        for (int e = 0; e < Tile::kChunk; ++e)
          if (first + e < pair_.channels) to[start + e * pair_.z.c] = values[e];
      }
    }
  }

  CNN_DEVICE T* error(int turn) const { return at<T>(turn % 2 * C::kTileBytes); }
  CNN_DEVICE T* filters(int turn) const { return at<T>(C::kFilters + turn % 2 * C::kFilterBytes); }
  CNN_DEVICE T* middle() const { return at<T>(C::kMiddle); }

 private:
  using Half = typename C::Depthwise;

  template <class Element>
  CNN_DEVICE Element* at(int byte) const {
    return reinterpret_cast<Element*>(memory_ + byte);
  }
  CNN_DEVICE T* intermediate() const {
    return at<T>(pair_.first == Activation::none ? C::kMiddle : C::kIntermediate);
  }
  CNN_DEVICE std::int64_t* of_output() const { return at<std::int64_t>(C::kPlaces); }
  CNN_DEVICE std::int64_t* of_intermediate() const { return of_output() + kBackwardRows; }
  CNN_DEVICE A* weights() const { return at<A>(C::kWeights); }
  CNN_DEVICE A slope() const { return static_cast<A>(pair_.slope); }

  CNN_DEVICE Vector<T, Tile::kChunk> read_saved(std::int64_t start) const {
    const int first = channel_ + Half::chunk() * Tile::kChunk;
    const T* from = static_cast<const T*>(errors_.saved) + start + first * pair_.z.c;
    Vector<T, Tile::kChunk> z{};
    if constexpr (C::kVectors) {
      if (start != kNowhere && first < pair_.channels) z = load<Tile::kChunk>(from);
    } else {
#pragma unroll
      for (int e = 0; e < Tile::kChunk; ++e)
        if (start != kNowhere && first + e < pair_.channels) z[e] = from[e * pair_.z.c];
    }
    return z;
  }

  const Pair& pair_;
  const Errors& errors_;
  unsigned char* memory_;
  int channel_;
};

template <class C>
CNN_KERNEL(C::kThreads, 1)
depthwise_separable_backward(const __grid_constant__ Pair pair, const __grid_constant__ Errors errors) {
  constexpr int kDepth = C::Tile::kDepth;
  CNN_DYNAMIC_SHARED(memory);
  std::uint32_t filter_tile, stage;
  const auto part =
      static_cast<int>(errors.stages.divmod(errors.filter_tiles.divmod(blockIdx.x, filter_tile), stage));
  const int channel = static_cast<int>(stage) * kDepth;
  const int own = static_cast<int>(filter_tile) * kBackwardFilterStages * kDepth;
  const bool makes_error = errors.of_intermediate != nullptr && filter_tile == 0;
  const int begin = makes_error ? 0 : own;
  const int end = makes_error ? pair.filters : min(pair.filters, own + kBackwardFilterStages * kDepth);
  const int last = min(errors.patches, (part + 1) * errors.patches_a_part);

  const BackwardBlock<C> block(pair, errors, memory, channel);
  typename C::WeightSums gradient[kBackwardFilterStages];
  bool weights_wait = errors.saved == nullptr;
#pragma unroll 1
  for (int patch = part * errors.patches_a_part; patch < last; ++patch) {
    __syncthreads();  // everyone is done with the patch before
    if (weights_wait) block.load_weights();
    weights_wait = errors.saved == nullptr && pair.r * pair.s > kTaps;  // other taps' lie there in the end
    block.place(static_cast<std::uint32_t>(patch));
    __syncthreads();
    block.start(0, begin, makes_error);
    block.make_middle(static_cast<std::uint32_t>(patch));
    typename C::ErrorSums error;
#pragma unroll 1
    for (int turn = 0, filter = begin; filter < end; ++turn, filter += kDepth) {
      cp_async_wait<0>();
      __syncthreads();  // the turn's tiles are there, and the middle; the turn before is done with
      if (filter + kDepth < end) block.start(turn + 1, filter + kDepth, makes_error);
      if (makes_error) error.multiply(block.error(turn), block.filters(turn));
#pragma unroll
      for (int i = 0; i < kBackwardFilterStages; ++i)
        if (errors.parts != nullptr && filter == own + i * kDepth)
          gradient[i].multiply(block.error(turn), block.middle());
    }
    if (makes_error) block.finish(error);
  }

  if (errors.parts == nullptr) return;
  using A = Accumulator<typename C::T>;
  A* parts = static_cast<A*>(errors.parts) + std::int64_t(part) * pair.filters * pair.channels;
#pragma unroll
  for (int i = 0; i < kBackwardFilterStages; ++i) {
    gradient[i].each([&](int row, int column, A sum) {
      const int filter = own + i * kDepth + row, m = channel + column;
      if (filter < pair.filters && m < pair.channels) parts[std::int64_t(filter) * pair.channels + m] = sum;
    });
  }
}

template <class T>
void launch_backward(const Pair& pair, const Errors& errors, Reader reader, std::int64_t blocks,
                     std::uintptr_t stream) {
  const auto run = [&](auto constant) {
    constexpr Reader kReader = decltype(constant)::value;
    using C = BackwardConfig<T, kReader>;
    if constexpr (backward_kernel_exists(sizeof(T), kReader)) {
      launch(depthwise_separable_backward<C>,
             Launch{dim3(static_cast<unsigned>(blocks)), dim3(C::kThreads), C::kSharedBytes, stream}, pair,
             errors);
    } else {
      throw_invalid_argument("depthwise_separable_conv2d: no such backward kernel");
    }
  };
  switch (reader) {
    case Reader::rows_of_three:
      return run(std::integral_constant<Reader, Reader::rows_of_three>{});
    case Reader::vectors:
      return run(std::integral_constant<Reader, Reader::vectors>{});
    case Reader::elements:
      return run(std::integral_constant<Reader, Reader::elements>{});
  }
}

}  // namespace cnnkernels::depthwise_separable_conv
