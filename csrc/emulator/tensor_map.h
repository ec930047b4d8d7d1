// What a CUtensorMap says, in 128 bytes of our own spelling: the runtime without a device writes them where a
// driver would, TMA's instructions read them wherever a kernel keeps them.
#pragma once

#include <cstdint>
#include <span>

namespace cnnkernels::emulator {

inline constexpr int kTensorMapBytes = 128;
inline constexpr int kMostDimensions = 5;

// Numbers are those of CUtensorMapDataType, so that the runtime casts.
enum class MapType : std::uint8_t {
  u8,
  u16,
  u32,
  s32,
  u64,
  s64,
  f16,
  f32,
  f64,
  bf16,
  f32_ftz,
  tf32,
  tf32_ftz
};

struct TensorMap {
  std::uint64_t address = 0;
  std::uint64_t sizes[kMostDimensions]{};    // elements, the innermost first
  std::uint64_t strides[kMostDimensions]{};  // bytes; of the innermost its element's
  std::uint32_t box[kMostDimensions]{};      // tiled
  std::uint32_t element_strides[kMostDimensions]{1, 1, 1, 1, 1};
  std::int32_t lower[3]{}, upper[3]{};     // im2col: corners of the box of pixels
  std::uint32_t channels = 0, pixels = 0;  // im2col
  MapType type = MapType::f16;
  std::uint8_t rank = 0;
  std::uint8_t swizzle_bytes = 0;  // 0, 32, 64, 128
  bool im2col = false;
  bool nan_fill = false;
};

void encode(const TensorMap& map, std::span<std::byte, kTensorMapBytes> bytes);
// Throws Fault where the bytes are no map.
TensorMap decode(std::span<const std::byte, kTensorMapBytes> bytes);

}  // namespace cnnkernels::emulator
