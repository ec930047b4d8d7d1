// Conformance of TMA: its loads and stores, one box at a time. Python describes
// boxes and coordinates as rows of int64.
#include "common/launch.h"
#include "ptx/sync.cuh"
#include "ptx/tma.cuh"
#include "registry.h"

#if !defined(CNN_INTERPRETER)
#include <cudaTypedefs.h>
#endif

#include <stdexcept>
#include <string>

namespace cnnkernels {
namespace {

constexpr int kThreads = 128;

struct Place {
  int at[5], tap[3];
};

template <int Rank, bool Im2col>
CNN_KERNEL(kThreads, 1)
load_kernel(const __grid_constant__ TensorMap map, Place place, int offset, int copied, int bytes,
            unsigned char* image) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  CNN_SHARED(Mbarrier, full, [1]);
  for (int i = threadIdx.x; i < bytes; i += kThreads) shared[i] = 0xee;
  if (threadIdx.x == 0) {
    tma_prefetch(map);
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_bytes(full, copied);
    int at[Rank];
#pragma unroll
    for (int i = 0; i < Rank; ++i) at[i] = place.at[i];
    if constexpr (Im2col) {
      int tap[Rank - 2];
#pragma unroll
      for (int i = 0; i < Rank - 2; ++i) tap[i] = place.tap[i];
      tma_load(shared + offset, map, full, at, tap);
    } else {
      tma_load(shared + offset, map, full, at);
    }
  }
  mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < bytes; i += kThreads) image[i] = shared[i];
#else
  left_out();
#endif
}

template <int Rank>
CNN_KERNEL(kThreads, 1)
store_kernel(const __grid_constant__ TensorMap map, Place place, int bytes, const unsigned char* image) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  for (int i = threadIdx.x; i < bytes; i += kThreads) shared[i] = image[i];
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    int at[Rank];
#pragma unroll
    for (int i = 0; i < Rank; ++i) at[i] = place.at[i];
    tma_store(map, shared, at);
    bulk_commit();
    bulk_wait_read<0>();
    bulk_wait<0>();
  }
#else
  left_out();
#endif
}

// Reads numbers one after the other.
struct Numbers {
  const std::int64_t* next;

  std::int64_t one() { return *next++; }
  template <class T, std::size_t N>
  void fill(T (&to)[N]) {
    for (T& number : to) number = static_cast<T>(one());
  }
};

// element, address, rank, size[5], stride[5], step[5], swizzle
template <class Box>
Box box_of(Numbers& numbers) {
  Box box{};
  box.element = static_cast<MapElement>(numbers.one());
  box.address = reinterpret_cast<const void*>(numbers.one());
  box.rank = static_cast<int>(numbers.one());
  numbers.fill(box.size);
  numbers.fill(box.stride);
  numbers.fill(box.step);
  box.swizzle = static_cast<Swizzle>(numbers.one());
  return box;
}

// .. then box[5]
TileBox tile_box(const std::int64_t* fields) {
  Numbers numbers{fields};
  auto box = box_of<TileBox>(numbers);
  numbers.fill(box.box);
  return box;
}

// .. then lower[3], upper[3], channels, pixels
Im2colBox im2col_box(const std::int64_t* fields) {
  Numbers numbers{fields};
  auto box = box_of<Im2colBox>(numbers);
  numbers.fill(box.lower);
  numbers.fill(box.upper);
  box.channels = static_cast<int>(numbers.one());
  box.pixels = static_cast<int>(numbers.one());
  return box;
}

// corner or start [5], tap [3]
Place place(const std::int64_t* fields) {
  Numbers numbers{fields};
  Place place;
  numbers.fill(place.at);
  numbers.fill(place.tap);
  return place;
}

#if !defined(CNN_INTERPRETER)
// What lies outside of two axes of halves or floats becomes NaN. No kernel asks for that, so the map is
// encoded here.
TensorMap filled_with_nan(const TileBox& t) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) !=
          cudaSuccess ||
      found == nullptr)
    throw std::runtime_error("the driver has no cuTensorMapEncodeTiled");
  const cuuint64_t size[] = {cuuint64_t(t.size[0]), cuuint64_t(t.size[1])},
                   stride[] = {cuuint64_t(t.stride[1])};
  const cuuint32_t box[] = {cuuint32_t(t.box[0]), cuuint32_t(t.box[1])}, step[] = {1, 1};
  const bool half = t.element == MapElement::float16;
  CUtensorMap map;
  const CUresult status = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found)(
      &map, half ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2,
      const_cast<void*>(t.address), size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
  if (status != CUDA_SUCCESS) throw std::runtime_error("CUDA driver error " + std::to_string(status));
  return {map};
}
#endif

Launch how(const tests::Arguments& arguments, std::int64_t bytes) {
  return {dim3(1), dim3(kThreads), std::size_t(bytes), arguments.stream};
}

}  // namespace

// box, place, offset, bytes, image: loads to byte `offset` of an image of `bytes`, elsewhere 0xee
CNN_TEST(tma_load_tile) {
  const TileBox box = tile_box(arguments.pointer<const std::int64_t>(0));
  constexpr decltype(&load_kernel<1, false>) kernels[] = {load_kernel<1, false>, load_kernel<2, false>,
                                                          load_kernel<3, false>, load_kernel<4, false>,
                                                          load_kernel<5, false>};
  const TensorMap map = make_tensor_map(box);
  launch(kernels[box.rank - 1], how(arguments, arguments.number(3)), map,
         place(arguments.pointer<const std::int64_t>(1)), int(arguments.number(2)), copied_bytes(box),
         int(arguments.number(3)), arguments.pointer<unsigned char>(4));
}

#if !defined(CNN_INTERPRETER)
// As tma_load_tile, of two axes.
CNN_TEST(tma_load_tile_nan) {
  const TileBox box = tile_box(arguments.pointer<const std::int64_t>(0));
  const TensorMap map = filled_with_nan(box);
  launch(load_kernel<2, false>, how(arguments, arguments.number(3)), map,
         place(arguments.pointer<const std::int64_t>(1)), int(arguments.number(2)), copied_bytes(box),
         int(arguments.number(3)), arguments.pointer<unsigned char>(4));
}
#endif

CNN_TEST(tma_load_im2col) {
  const Im2colBox box = im2col_box(arguments.pointer<const std::int64_t>(0));
  constexpr decltype(&load_kernel<3, true>) kernels[] = {load_kernel<3, true>, load_kernel<4, true>,
                                                         load_kernel<5, true>};
  const TensorMap map = make_tensor_map(box);
  launch(kernels[box.rank - 3], how(arguments, arguments.number(3)), map,
         place(arguments.pointer<const std::int64_t>(1)), int(arguments.number(2)), copied_bytes(box),
         int(arguments.number(3)), arguments.pointer<unsigned char>(4));
}

// box, place, bytes, image: stores the box that the image begins with
CNN_TEST(tma_store_tile) {
  const TileBox box = tile_box(arguments.pointer<const std::int64_t>(0));
  constexpr decltype(&store_kernel<1>) kernels[] = {store_kernel<1>, store_kernel<2>, store_kernel<3>,
                                                    store_kernel<4>, store_kernel<5>};
  const TensorMap map = make_tensor_map(box);
  launch(kernels[box.rank - 1], how(arguments, arguments.number(2)), map,
         place(arguments.pointer<const std::int64_t>(1)), int(arguments.number(2)),
         arguments.pointer<const unsigned char>(3));
}

}  // namespace cnnkernels
