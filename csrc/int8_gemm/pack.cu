// Copies a matrix of any strides to one that tensor cores read at full speed: each side's reduction
// contiguous, padded with zeros to whole 16 bytes.
#include "../common/int8_loader.cuh"
#include "../common/launch.h"
#include "int8_gemm.h"

namespace cnnkernels::int8_gemm {

namespace {

using int8::kStageBytes;
using int8::kThreads;
using int8::kVectorBytes;

constexpr int kSides = 64;
using Loader = int8::WordLoader<kSides>;

// A block copies a tile of 64 sides by 64 bytes of the reduction.
CNN_KERNEL(kThreads, 4)
pack(const __grid_constant__ int8::Operand operand, const int8::Depth depth, std::uint8_t* to,
     std::int64_t pitch) {
  CNN_DYNAMIC_SHARED(tile);
  const std::int64_t first = std::int64_t(blockIdx.x) * kSides;
  const std::uint32_t first_word = blockIdx.y * (kStageBytes / int8::kWordBytes);
  Loader loader(operand, depth, 0, first, first_word, tile + kSides * kStageBytes);
  __syncthreads();
  loader.start(tile);
  loader.finish(tile);
  __syncthreads();

  constexpr int kChunks = kStageBytes / kVectorBytes;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kSides * kChunks; i += kThreads) {
    const int side = i / kChunks, chunk = i % kChunks;
    const std::int64_t k = std::int64_t(blockIdx.y) * kStageBytes + chunk * kVectorBytes;
    if (first + side >= operand.extent || k >= pitch) continue;
    const auto* from = reinterpret_cast<const std::uint32_t*>(tile + int8::place_in_tile(side, chunk));
    store(reinterpret_cast<std::uint32_t*>(to + (first + side) * pitch + k), load<4>(from));
  }
}

}  // namespace

void launch_pack(const int8::Operand& operand, std::int64_t k, void* to, std::uintptr_t stream) {
  const std::int64_t pitch = padded_depth(k);
  int8::Depth depth;
  depth.run_bytes = k;
  depth.units = FastDivide(ceil_div(k, int8::kWordBytes));
  const dim3 grid(static_cast<unsigned>(ceil_div(operand.extent, kSides)),
                  static_cast<unsigned>(ceil_div(pitch, kStageBytes)));
  launch(pack, Launch{grid, dim3(kThreads), kSides * kStageBytes + Loader::kTableBytes, stream}, operand,
         depth, static_cast<std::uint8_t*>(to), pitch);
}

}  // namespace cnnkernels::int8_gemm
