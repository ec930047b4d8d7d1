#include "driver.h"

#include <cstdint>
#include <iterator>
#include <span>

#include <cuda.h>

#include "../tensor_map.h"
#include "device.h"

namespace cnnkernels::emulator::runtime {

namespace {

thread_local std::string refusal;

// What the documentation of cuTensorMapEncode* demands, in its order. The first fault found stays.
class Demands {
 public:
  bool met() const { return why_.empty(); }
  const std::string& why() const { return why_; }

  void demand(bool holds, const std::string& why) {
    if (!holds && why_.empty()) why_ = why;
  }
  void within(const std::string& what, std::int64_t value, std::int64_t least, std::int64_t most) {
    demand(value >= least && value <= most, what + " = " + std::to_string(value) + " is not in [" +
                                                std::to_string(least) + ", " + std::to_string(most) + "]");
  }
  void multiple(const std::string& what, std::uint64_t value, std::uint64_t of) {
    demand(value % of == 0,
           what + " = " + std::to_string(value) + " is not a multiple of " + std::to_string(of));
  }

 private:
  std::string why_;
};

std::string at(const char* array, int i) { return array + ("[" + std::to_string(i) + "]"); }

int bytes_of(MapType type) {
  constexpr int kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  return kBytes[static_cast<int>(type)];
}

bool is_float(MapType type) { return type >= MapType::f16; }

// What both kinds of map are told.
struct Told {
  CUtensorMap* map;
  CUtensorMapDataType type;
  cuuint32_t rank;
  void* address;
  const cuuint64_t *sizes, *strides;
  const cuuint32_t* steps;
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapL2promotion promotion;
  CUtensorMapFloatOOBfill fill;
};

// The map without its box. `row`: elements of the innermost dimension that a box has.
TensorMap common(const Told& t, int least_rank, std::uint64_t row, const char* row_name, Demands& d) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 32, kFarthest = std::int64_t{1} << 40;
  TensorMap map;
  d.multiple("map's address", reinterpret_cast<std::uintptr_t>(t.map), 64);
  d.within("type", t.type, CU_TENSOR_MAP_DATA_TYPE_UINT8, CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ);
  d.within("rank", t.rank, least_rank, kMostDimensions);
  d.within("swizzle", t.swizzle, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_128B);
  d.within("L2 promotion", t.promotion, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
  d.within("fill", t.fill, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
           CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
  if (!d.met()) return map;

  map.type = static_cast<MapType>(t.type);
  map.rank = static_cast<std::uint8_t>(t.rank);
  map.address = reinterpret_cast<std::uintptr_t>(t.address);
  map.nan_fill = t.fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
  const int bytes = bytes_of(map.type);
  d.multiple("address", map.address, 16);
  d.demand(!map.nan_fill || is_float(map.type), "NaN fills what is no floating number");
  map.strides[0] = bytes;
  for (int i = 0; i < map.rank; ++i) {
    map.sizes[i] = t.sizes[i];
    d.demand(t.sizes[i] >= 1 && t.sizes[i] <= kLargest,
             at("size", i) + " = " + std::to_string(t.sizes[i]) + " is not in [1, 2^32]");
    if (i == 0) continue;  // dense
    map.strides[i] = t.strides[i - 1];
    map.element_strides[i] = t.steps[i];
    d.multiple(at("stride", i), t.strides[i - 1], 16);
    d.demand(t.strides[i - 1] < kFarthest, at("stride", i) + " is not below 2^40");
    d.within(at("element stride", i), t.steps[i], 1, 8);
  }
  const std::uint64_t row_bytes = row * bytes;
  d.multiple(std::string(row_name) + " * element bytes", row_bytes, 16);
  if (t.swizzle != CU_TENSOR_MAP_SWIZZLE_NONE) {
    map.swizzle_bytes = static_cast<std::uint8_t>(16 << t.swizzle);
    d.demand(row_bytes <= map.swizzle_bytes,
             std::string(row_name) + " * element bytes = " + std::to_string(row_bytes) +
                 " is wider than the swizzle, " + std::to_string(map.swizzle_bytes));
  }
  return map;
}

// Whether a map can be made at all; what it says is looked at after that.
CUresult able(const Told& t) {
  refusal.clear();
  const auto no = [](CUresult status, const std::string& why) {
    refusal = why;
    return status;
  };
  if (broken() != cudaSuccess) return no(CUDA_ERROR_LAUNCH_FAILED, "an earlier kernel's fault");
  if (!has_context()) return no(CUDA_ERROR_INVALID_CONTEXT, "the thread has no context");
  const Gpu& on = gpu(current_device());
  if (on.architecture < 90) return no(CUDA_ERROR_NOT_SUPPORTED, std::string(on.name) + " has no TMA");
  if (t.map == nullptr) return no(CUDA_ERROR_INVALID_VALUE, "no map");
  if (t.interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
    return no(CUDA_ERROR_NOT_SUPPORTED, "interleaved layouts are not emulated");
  return CUDA_SUCCESS;
}

CUresult finish(const Told& t, const TensorMap& map, const Demands& d) {
  refusal = d.why();
  if (!d.met()) return CUDA_ERROR_INVALID_VALUE;
  static_assert(sizeof(CUtensorMap) == kTensorMapBytes);
  encode(map, std::span<std::byte, kTensorMapBytes>(reinterpret_cast<std::byte*>(t.map), kTensorMapBytes));
  return CUDA_SUCCESS;
}

CUresult CUDAAPI encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                              const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                              const cuuint32_t* steps, CUtensorMapInterleave interleave,
                              CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                              CUtensorMapFloatOOBfill fill) {
  const Told t{map, type, rank, address, sizes, strides, steps, interleave, swizzle, promotion, fill};
  if (const CUresult status = able(t); status != CUDA_SUCCESS) return status;
  Demands d;
  TensorMap made = common(t, 1, box[0], "box[0]", d);
  for (int i = 0; d.met() && i < made.rank; ++i) {
    made.box[i] = box[i];
    d.within(at("box", i), box[i], 1, 256);
  }
  return finish(t, made, d);
}

CUresult CUDAAPI encode_im2col(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                               const cuuint64_t* sizes, const cuuint64_t* strides, const int* lower,
                               const int* upper, cuuint32_t channels, cuuint32_t pixels,
                               const cuuint32_t* steps, CUtensorMapInterleave interleave,
                               CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                               CUtensorMapFloatOOBfill fill) {
  const Told t{map, type, rank, address, sizes, strides, steps, interleave, swizzle, promotion, fill};
  if (const CUresult status = able(t); status != CUDA_SUCCESS) return status;
  Demands d;
  TensorMap made = common(t, 3, channels, "channels", d);
  made.im2col = true;
  made.channels = channels;
  made.pixels = pixels;
  d.within("channels", channels, 1, 256);
  d.within("pixels", pixels, 1, 1024);
  // Innermost first, {W, H, D}, as everything else; their bits are the instruction's.
  const int corner = rank == 3 ? 1 << 15 : rank == 4 ? 1 << 7 : 1 << 4;
  for (int i = 0; d.met() && i < made.rank - 2; ++i) {
    made.lower[i] = lower[i];
    made.upper[i] = upper[i];
    d.within(at("lower", i), lower[i], -corner, corner - 1);
    d.within(at("upper", i), upper[i], -corner, corner - 1);
    const std::int64_t places = static_cast<std::int64_t>(sizes[i + 1]) + upper[i] - lower[i];
    d.demand(places >= 1, at("size", i + 1) + " + upper - lower = " + std::to_string(places) +
                              " leaves no place for a pixel");
  }
  return finish(t, made, d);
}

CUresult CUDAAPI current_context(CUcontext* context) {
  static int only;
  *context = has_context() ? reinterpret_cast<CUcontext>(&only) : nullptr;
  return CUDA_SUCCESS;
}

}  // namespace

const EntryPoint* entry_point(const std::string& name) {
  static const EntryPoint kAll[] = {
      {"cuCtxGetCurrent", 4000, reinterpret_cast<void*>(&current_context)},
      {"cuTensorMapEncodeTiled", 12000, reinterpret_cast<void*>(&encode_tiled)},
      {"cuTensorMapEncodeIm2col", 12000, reinterpret_cast<void*>(&encode_im2col)},
  };
  for (const EntryPoint& known : kAll)
    if (name == known.name) return &known;
  return nullptr;
}

const std::string& why_no_map() { return refusal; }

}  // namespace cnnkernels::emulator::runtime
