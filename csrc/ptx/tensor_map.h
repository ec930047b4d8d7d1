// The description of a tensor that TMA copies boxes of, made on the host and passed to a kernel by value:
//
//   make_tensor_map(TileBox{.element = MapElement::float16, .rank = 2, .address = x, .size = {C, N},
//                           .stride = {0, 2 * C}, .box = {64, 128}, .swizzle = Swizzle::span128})
//   CNN_KERNEL(128, 1) kernel(const __grid_constant__ TensorMap map, ..)
//
// Dimensions are given innermost first, everywhere. What cuTensorMapEncode* demands is checked here, by name
// and value, for the GPU and the interpreter alike: std::invalid_argument.
#pragma once

#include "../common/device.h"

#if !defined(CNN_INTERPRETER)
#include <cuda.h>
#endif

namespace cnnkernels {

// How 16-byte chunks are permuted within rows of 32, 64 or 128 bytes of shared memory; see swizzle.h.
enum class Swizzle : int { none = 0, span32 = 1, span64 = 2, span128 = 3 };

// Of the memory: uint8 serves int8 too. tf32 reads float and rounds it to tf32, to nearest even.
enum class MapElement : int { uint8, int32, float16, bfloat16, float32, tf32 };

constexpr int element_bytes(MapElement element) {
  return element == MapElement::uint8                                        ? 1
         : element == MapElement::float16 || element == MapElement::bfloat16 ? 2
                                                                             : 4;
}

// A box of up to five dimensions.
struct TileBox {
  MapElement element = MapElement::uint8;
  int rank = 0;                   // 1 to 5
  const void* address = nullptr;  // of element (0, 0, ..), 16-byte aligned
  // Of the tensor, in elements: what lies outside reads as zero and is not written.
  std::int64_t size[5] = {};
  // Bytes to the next element of a dimension; [0] is not read: elements are dense.
  std::int64_t stride[5] = {};
  int box[5] = {};                // elements spanned, at most 256 a dimension
  int step[5] = {1, 1, 1, 1, 1};  // takes every step-th element of the span; 1 to 8, [0] is not read
  Swizzle swizzle = Swizzle::none;
  std::int32_t unused = 0;
};

// A column of pixels of an N (D) H W C tensor, as an implicit GEMM needs them: pixels are
// counted along W, then H, then (D, then) N, over the places a filter's first tap can
// have, from `lower` to size - 1 + `upper`.
struct Im2colBox {
  MapElement element = MapElement::uint8;
  int rank = 0;  // 3, 4 or 5: dimensions {C, W, N}, {C, W, H, N} or {C, W, H, D, N}
  const void* address = nullptr;
  std::int64_t size[5] = {};
  std::int64_t stride[5] = {};
  int lower[3] = {};              // of {W, H, D}; -padding for a convolution's forward pass
  int upper[3] = {};              // padding - (filter - 1) * dilation
  int channels = 0;               // a pixel's elements, at most 256
  int pixels = 0;                 // of the column, at most 1024
  int step[5] = {1, 1, 1, 1, 1};  // {-, stride_w, stride_h, .., -}
  Swizzle swizzle = Swizzle::none;
};

// What a box or a column takes of shared memory, and what its arrival counts on the mbarrier, whatever part
// of it lies outside the tensor.
inline int copied_bytes(const TileBox& t) {
  int elements = t.box[0];
  for (int i = 1; i < t.rank; ++i) elements *= (t.box[i] + t.step[i] - 1) / t.step[i];
  return elements * element_bytes(t.element);
}
inline int copied_bytes(const Im2colBox& t) { return t.pixels * t.channels * element_bytes(t.element); }

#if defined(CNN_INTERPRETER)

// One of the two boxes, checked. Aligned as the GPU's.
struct alignas(64) TensorMap {
  TileBox tile;
  Im2colBox column;
  bool im2col = false;
  std::uint8_t unused[23] = {};
};

#else

struct TensorMap {
  CUtensorMap opaque{};  // arguments have maps that a launch does not use
};

#endif

TensorMap make_tensor_map(const TileBox& t);
TensorMap make_tensor_map(const Im2colBox& t);

}  // namespace cnnkernels
