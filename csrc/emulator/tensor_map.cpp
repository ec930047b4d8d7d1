#include "emulator/tensor_map.h"

#include <algorithm>
#include <cstring>

#include "emulator/asynchronous/map_fields.h"
#include "emulator/fault.h"

namespace cnnkernels::emulator {
namespace {

constexpr std::uint32_t kMagic = 0x70616d54;  // "Tmap"

// No field needs a bit to be set in a map of zeros: kernels begin theirs with those (tensormap.replace).
struct Packed {
  std::uint64_t address;
  std::uint64_t sizes[kMostDimensions];
  std::uint64_t strides[kMostDimensions - 1];
  std::int16_t lower[3], upper[3];
  std::uint16_t box[kMostDimensions];
  std::uint16_t channels, pixels;
  std::uint8_t element_strides[kMostDimensions];
  std::uint8_t type, rank, swizzle_bytes, im2col, nan_fill;
  std::uint32_t magic;
};
static_assert(sizeof(Packed) <= kTensorMapBytes);

}  // namespace

int element_bytes(MapType type) {
  switch (type) {
    case MapType::u8:
      return 1;
    case MapType::u16:
    case MapType::f16:
    case MapType::bf16:
      return 2;
    case MapType::u64:
    case MapType::s64:
    case MapType::f64:
      return 8;
    default:
      return 4;
  }
}

void encode(const TensorMap& map, std::span<std::byte, kTensorMapBytes> bytes) {
  Packed packed{};
  packed.address = map.address;
  std::ranges::copy(map.sizes, packed.sizes);
  std::copy(map.strides + 1, map.strides + kMostDimensions, packed.strides);
  std::ranges::transform(map.box, packed.box, [](auto n) { return static_cast<std::uint16_t>(n); });
  std::ranges::transform(map.element_strides, packed.element_strides,
                         [](auto n) { return static_cast<std::uint8_t>(n); });
  std::ranges::transform(map.lower, packed.lower, [](auto n) { return static_cast<std::int16_t>(n); });
  std::ranges::transform(map.upper, packed.upper, [](auto n) { return static_cast<std::int16_t>(n); });
  packed.channels = static_cast<std::uint16_t>(map.channels);
  packed.pixels = static_cast<std::uint16_t>(map.pixels);
  packed.type = static_cast<std::uint8_t>(map.type);
  packed.rank = map.rank;
  packed.swizzle_bytes = map.swizzle_bytes;
  packed.im2col = map.im2col;
  packed.nan_fill = map.nan_fill;
  packed.magic = kMagic;
  std::ranges::fill(bytes, std::byte{0});
  std::memcpy(bytes.data(), &packed, sizeof packed);
}

TensorMap decode_unfinished(std::span<const std::byte, kTensorMapBytes> bytes) {
  Packed packed;
  std::memcpy(&packed, bytes.data(), sizeof packed);
  const bool blank = std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
  if (!blank && packed.magic != kMagic) fault("the 128 bytes here are no tensor map");
  if (packed.type > static_cast<std::uint8_t>(MapType::tf32_ftz))
    fault("a tensor map's element type is unknown");
  TensorMap map;
  map.address = packed.address;
  map.type = static_cast<MapType>(packed.type);
  std::ranges::copy(packed.sizes, map.sizes);
  map.strides[0] = static_cast<std::uint64_t>(element_bytes(map.type));
  std::ranges::copy(packed.strides, map.strides + 1);
  std::ranges::copy(packed.box, map.box);
  std::ranges::copy(packed.element_strides, map.element_strides);
  std::ranges::copy(packed.lower, map.lower);
  std::ranges::copy(packed.upper, map.upper);
  map.channels = packed.channels;
  map.pixels = packed.pixels;
  map.rank = packed.rank;
  map.swizzle_bytes = packed.swizzle_bytes;
  map.im2col = packed.im2col != 0;
  map.nan_fill = packed.nan_fill != 0;
  return map;
}

const char* why_unusable(const TensorMap& map) {
  if (map.rank < (map.im2col ? 3 : 1) || map.rank > kMostDimensions) return "its rank is none of its mode's";
  if (map.address == 0 || map.address % 16 != 0) return "its address is no multiple of 16 bytes";
  const std::uint64_t row = (map.im2col ? map.channels : map.box[0]) * map.strides[0];
  if (row == 0 || row % 16 != 0) return "the rows of its box are no multiple of 16 bytes";
  if (map.swizzle_bytes != 0 && row > map.swizzle_bytes)
    return "the rows of its box are wider than its swizzle";
  if (map.im2col && (map.channels > 256 || map.pixels < 1 || map.pixels > 1024)) {
    return "its channels are not 1 to 256 or its pixels not 1 to 1024";
  }
  for (int d = 0; d < map.rank; ++d) {
    if (map.sizes[d] == 0 || map.sizes[d] > std::uint64_t{1} << 32) return "a size is not 1 to 2^32";
    if (!map.im2col && (map.box[d] < 1 || map.box[d] > 256)) return "a side of its box is not 1 to 256";
    if (map.element_strides[d] < 1 || map.element_strides[d] > 8) return "an element stride is not 1 to 8";
    if (d > 0 && (map.strides[d] % 16 != 0 || map.strides[d] >= std::uint64_t{1} << 40)) {
      return "a stride is no multiple of 16 bytes below 2^40";
    }
  }
  return nullptr;
}

TensorMap decode(std::span<const std::byte, kTensorMapBytes> bytes) {
  const TensorMap map = decode_unfinished(bytes);
  if (const char* why = why_unusable(map)) fault("a tensor map is unusable: %s", why);
  return map;
}

}  // namespace cnnkernels::emulator
