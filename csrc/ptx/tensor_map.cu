// Checks and makes tensor maps, on the host: by the driver, or for the interpreter.
#include "tensor_map.h"

#include <stdexcept>
#include <string>

#if !defined(CNN_INTERPRETER)
#include <cudaTypedefs.h>
#endif

namespace cnnkernels {

namespace {

[[noreturn]] void refuse(const std::string& what, std::int64_t value, const std::string& demand) {
  throw std::invalid_argument("tensor map: " + what + " = " + std::to_string(value) + " " + demand);
}
void check_range(const std::string& what, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most) {
    refuse(what, value, "is not in [" + std::to_string(least) + ", " + std::to_string(most) + "]");
  }
}
void check_multiple(const std::string& what, std::int64_t value, std::int64_t of) {
  if (value % of != 0) refuse(what, value, "is not a multiple of " + std::to_string(of));
}
std::string at(const char* array, int i) { return array + ("[" + std::to_string(i) + "]"); }

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

void check(const TileBox& t) {
  check_range("rank", t.rank, 1, 5);
  for (int i = 0; i < t.rank; ++i) check_range(at("box", i), t.box[i], 1, 256);
  check_tensor(t, 1, t.box[0], "box[0]");
}

void check(const Im2colBox& t) {
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

}  // namespace

#if defined(CNN_INTERPRETER)

TensorMap make_tensor_map(const TileBox& t) {
  check(t);
  return {t, {}, false};
}
TensorMap make_tensor_map(const Im2colBox& t) {
  check(t);
  return {{}, t, true};
}

#else

namespace {

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
void bind_context() {
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

void check_encoded(CUresult status, const char* name) {
  if (status != CUDA_SUCCESS) {
    throw std::runtime_error(std::string(name) + " failed with CUDA driver error " + std::to_string(status));
  }
}

}  // namespace

// A map is encoded in a variable and copied: the place for a returned one, which g++ 12 makes in the caller,
// need not have the 64-byte alignment that the driver asks for.
TensorMap make_tensor_map(const TileBox& t) {
  check(t);
  constexpr const char* kName = "cuTensorMapEncodeTiled";
  static const auto encode = driver<PFN_cuTensorMapEncodeTiled_v12000>(kName);
  bind_context();
  const Fields f(t);
  cuuint32_t box[5];
  for (int i = 0; i < 5; ++i) box[i] = t.box[i];
  CUtensorMap map;
  check_encoded(
      encode(&map, f.type, t.rank, f.address, f.size, f.stride, box, f.step, CU_TENSOR_MAP_INTERLEAVE_NONE,
             f.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
      kName);
  return {map};
}

// The driver takes the corners innermost first as well, {W, H, D}, whatever the prose of cuda.h says.
TensorMap make_tensor_map(const Im2colBox& t) {
  check(t);
  constexpr const char* kName = "cuTensorMapEncodeIm2col";
  static const auto encode = driver<PFN_cuTensorMapEncodeIm2col_v12000>(kName);
  bind_context();
  const Fields f(t);
  CUtensorMap map;
  check_encoded(encode(&map, f.type, t.rank, f.address, f.size, f.stride, t.lower, t.upper, t.channels,
                       t.pixels, f.step, CU_TENSOR_MAP_INTERLEAVE_NONE, f.swizzle,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                kName);
  return {map};
}

#endif

}  // namespace cnnkernels
