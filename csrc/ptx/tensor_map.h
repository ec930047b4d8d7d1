// The description of a tensor that TMA copies boxes of, made on the host and passed to a kernel by value:
//
//   make_tensor_map(TileBox{.element = MapElement::float16, .rank = 2, .address = x, .size = {C, N},
//                           .stride = {0, 2 * C}, .box = {64, 128}, .swizzle = Swizzle::span128})
//   CNN_KERNEL(128, 1) kernel(const __grid_constant__ TensorMap map, ..)
//
// Dimensions are given innermost first, everywhere. What cuTensorMapEncode* demands is checked here, by name
// and value, for the GPU and the interpreter alike: std::invalid_argument.
#pragma once

#include <stdexcept>
#include <string>

#include "../common/device.h"

#if !defined(CNN_INTERPRETER)
#include <cudaTypedefs.h>
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

namespace tensor_map {

[[noreturn]] inline void refuse(const std::string& what, std::int64_t value, const std::string& demand) {
  throw std::invalid_argument("tensor map: " + what + " = " + std::to_string(value) + " " + demand);
}
inline void check_range(const std::string& what, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most) {
    refuse(what, value, "is not in [" + std::to_string(least) + ", " + std::to_string(most) + "]");
  }
}
inline void check_multiple(const std::string& what, std::int64_t value, std::int64_t of) {
  if (value % of != 0) refuse(what, value, "is not a multiple of " + std::to_string(of));
}
inline std::string at(const char* array, int i) { return array + ("[" + std::to_string(i) + "]"); }

// What both kinds demand.
template <class Box>
void check_tensor(const Box& t, int least_rank, int row_elements, const char* row_name) {
  check_range("rank", t.rank, least_rank, 5);
  check_multiple("address", static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(t.address)), 16);
  for (int i = 0; i < t.rank; ++i) {
    check_range(at("size", i), t.size[i], 1, std::int64_t(1) << 32);
    if (i == 0) continue;
    check_range(at("stride", i), t.stride[i], 0, (std::int64_t(1) << 40) - 1);
    check_multiple(at("stride", i), t.stride[i], 16);
    check_range(at("step", i), t.step[i], 1, 8);
  }
  const int row_bytes = row_elements * element_bytes(t.element);
  const std::string row = std::string(row_name) + " * element bytes";
  check_multiple(row, row_bytes, 16);
  if (t.swizzle != Swizzle::none) check_range(row, row_bytes, 16, 16 << static_cast<int>(t.swizzle));
}

inline void check(const TileBox& t) {
  check_range("rank", t.rank, 1, 5);
  for (int i = 0; i < t.rank; ++i) check_range(at("box", i), t.box[i], 1, 256);
  check_tensor(t, 1, t.box[0], "box[0]");
}

inline void check(const Im2colBox& t) {
  check_range("rank", t.rank, 3, 5);
  check_range("channels", t.channels, 1, 256);
  check_range("pixels", t.pixels, 1, 1024);
  const int corner = t.rank == 3 ? 1 << 15 : t.rank == 4 ? 1 << 7 : 1 << 4;
  for (int i = 0; i < t.rank - 2; ++i) {
    check_range(at("lower", i), t.lower[i], -corner, corner - 1);
    check_range(at("upper", i), t.upper[i], -corner, corner - 1);
    const std::int64_t places = t.size[i + 1] + t.upper[i] - t.lower[i];
    if (places < 1) refuse(at("size", i + 1) + " + upper - lower", places, "leaves no place for a pixel");
  }
  check_tensor(t, 3, t.channels, "channels");
}

}  // namespace tensor_map

#if defined(CNN_INTERPRETER)

// One of the two boxes, checked. Aligned as the GPU's.
struct alignas(64) TensorMap {
  TileBox tile;
  Im2colBox column;
  bool im2col = false;
  std::uint8_t unused[23] = {};
};

inline TensorMap make_tensor_map(const TileBox& t) {
  tensor_map::check(t);
  return {t, {}, false};
}
inline TensorMap make_tensor_map(const Im2colBox& t) {
  tensor_map::check(t);
  return {{}, t, true};
}

#else

struct TensorMap {
  CUtensorMap opaque{};  // arguments have maps that a launch does not use
};

namespace tensor_map {

// A function of the driver, found at run time: the module links and imports where there is no driver. Those
// of CUDA 12.0, or of an older version for what has not changed since.
template <class Function>
Function driver(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result);
  if (status != cudaSuccess || result != cudaDriverEntryPointSuccess || found == nullptr) {
    cudaGetLastError();
    throw std::runtime_error(std::string("the CUDA driver has no ") + name + ": " +
                             cudaGetErrorString(status));
  }
  return reinterpret_cast<Function>(found);
}

// Encoding needs a current context of the calling thread. A new thread has none before the first call of the
// runtime that makes one, and an encoding may be its first: autograd's worker of the first GPU, a server's. A
// context that is there stays, and nothing here is prohibited while a stream captures.
inline void bind_context() {
  static const auto current = driver<PFN_cuCtxGetCurrent_v4000>("cuCtxGetCurrent");
  CUcontext context = nullptr;
  if (current(&context) == CUDA_SUCCESS && context != nullptr) return;
  int device = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) status = cudaSetDevice(device);
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw std::runtime_error(std::string("binding a CUDA context: ") + cudaGetErrorString(status));
  }
}

// A box's fields in the driver's types.
struct Fields {
  CUtensorMapDataType type;
  void* address;
  cuuint64_t size[5], stride[4];
  cuuint32_t step[5];
  CUtensorMapSwizzle swizzle;

  template <class Box>
  explicit Fields(const Box& t) : address(const_cast<void*>(t.address)) {
    constexpr CUtensorMapDataType kTypes[] = {
        CU_TENSOR_MAP_DATA_TYPE_UINT8,    CU_TENSOR_MAP_DATA_TYPE_INT32,   CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, CU_TENSOR_MAP_DATA_TYPE_TFLOAT32};
    constexpr CUtensorMapSwizzle kSwizzles[] = {CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_32B,
                                                CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_128B};
    type = kTypes[static_cast<int>(t.element)];
    swizzle = kSwizzles[static_cast<int>(t.swizzle)];
    for (int i = 0; i < 5; ++i) {
      size[i] = t.size[i];
      step[i] = i == 0 ? 1 : t.step[i];
      if (i > 0) stride[i - 1] = t.stride[i];
    }
  }
};

inline void check_encoded(CUresult status, const char* name) {
  if (status != CUDA_SUCCESS) {
    throw std::runtime_error(std::string(name) + " failed with CUDA driver error " + std::to_string(status));
  }
}

}  // namespace tensor_map

// A map is encoded in a variable and copied: the place for a returned one, which g++ 12 makes in the caller,
// need not have the 64-byte alignment that the driver asks for.
inline TensorMap make_tensor_map(const TileBox& t) {
  tensor_map::check(t);
  constexpr const char* kName = "cuTensorMapEncodeTiled";
  static const auto encode = tensor_map::driver<PFN_cuTensorMapEncodeTiled_v12000>(kName);
  tensor_map::bind_context();
  const tensor_map::Fields f(t);
  cuuint32_t box[5];
  for (int i = 0; i < 5; ++i) box[i] = t.box[i];
  CUtensorMap map;
  tensor_map::check_encoded(
      encode(&map, f.type, t.rank, f.address, f.size, f.stride, box, f.step, CU_TENSOR_MAP_INTERLEAVE_NONE,
             f.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
      kName);
  return {map};
}

// The driver takes the corners innermost first as well, {W, H, D}, whatever the prose of cuda.h says.
inline TensorMap make_tensor_map(const Im2colBox& t) {
  tensor_map::check(t);
  constexpr const char* kName = "cuTensorMapEncodeIm2col";
  static const auto encode = tensor_map::driver<PFN_cuTensorMapEncodeIm2col_v12000>(kName);
  tensor_map::bind_context();
  const tensor_map::Fields f(t);
  CUtensorMap map;
  tensor_map::check_encoded(encode(&map, f.type, t.rank, f.address, f.size, f.stride, t.lower, t.upper,
                                   t.channels, t.pixels, f.step, CU_TENSOR_MAP_INTERLEAVE_NONE, f.swizzle,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                            kName);
  return {map};
}

#endif

}  // namespace cnnkernels
