// Copies a matrix of any strides to one that tensor cores read at full speed: each side's reduction
// contiguous, padded with zeros to whole 16 bytes.
#include "../int8/loader.cuh"
#include "../common/launch.h"
#include "int8_gemm.h"

#include <type_traits>

namespace cnnkernels::int8_gemm {

namespace {

using int8::kStageBytes;
using int8::kThreads;
using int8::kVectorBytes;

constexpr int kSides = 64;

// A block copies a tile of 64 sides by 64 bytes of the reduction, neighbouring blocks neighbouring sides. All
// are counted along x: K / 64 of them may be more than another axis has.
template <class Loader>
CNN_KERNEL(kThreads, 4)
pack(const __grid_constant__ int8::Operand operand, const int8::Depth depth, const FastDivide side_tiles,
     std::uint8_t* to, std::int64_t pitch) {
  CNN_DYNAMIC_SHARED(tile);
  std::uint32_t side_tile;
  const std::uint32_t stage = side_tiles.divmod(blockIdx.x, side_tile);
  const std::int64_t first = std::int64_t(side_tile) * kSides;
  const std::uint32_t first_word = stage * (kStageBytes / int8::kWordBytes);
  Loader loader(operand, depth, 0, first, first_word, tile + kSides * kStageBytes);
  __syncthreads();
  loader.start(tile);
  loader.finish(tile);
  __syncthreads();

  constexpr int kChunks = kStageBytes / kVectorBytes;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kSides * kChunks; i += kThreads) {
    const int side = i / kChunks, chunk = i % kChunks;
    const std::int64_t k = std::int64_t(stage) * kStageBytes + chunk * kVectorBytes;
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
  const std::int64_t side_tiles = ceil_div(operand.extent, kSides);
  const dim3 grid(static_cast<unsigned>(side_tiles * ceil_div(pitch, kStageBytes)));
  const auto with = [&]<class Loader>(std::type_identity<Loader>) {
    launch(pack<Loader>, Launch{grid, dim3(kThreads), kSides * kStageBytes + Loader::kTableBytes, stream},
           operand, depth, FastDivide(side_tiles), static_cast<std::uint8_t*>(to), pitch);
  };
  if (operand.ragged)
    with(std::type_identity<int8::WordLoader<kSides, true>>{});
  else
    with(std::type_identity<int8::WordLoader<kSides, false>>{});
}

}  // namespace cnnkernels::int8_gemm
