#include "emulator/asynchronous/tensor_copy.h"

#include <cstring>

#include "emulator/asynchronous/map_fields.h"
#include "emulator/memory/address.h"
#include "emulator/numbers.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

// To the nearest, ties to even; a NaN becomes the one of the format. The low 13 bits are zero.
std::uint32_t rounded_to_tf32(std::uint32_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return kTf32.nan() << 13;
  if (magnitude == 0x7f800000) return bits;
  return (bits + 0xfff + (bits >> 13 & 1)) & ~std::uint32_t{0x1fff};
}

std::uint32_t without_subnormal(std::uint32_t bits) {
  return (bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits;
}

// What loading does to a type's bits; most are copied.
void convert(MapType type, std::byte* bytes, std::uint32_t count) {
  const bool flushes = type == MapType::f32_ftz || type == MapType::tf32_ftz;
  const bool rounds =
      (type == MapType::tf32 || type == MapType::tf32_ftz) && !is_wrong(WrongModel::tf32_copied);
  if (!flushes && !rounds) return;
  for (std::uint32_t i = 0; i < count; i += 4) {
    std::uint32_t bits;
    std::memcpy(&bits, bytes + i, 4);
    if (flushes) bits = without_subnormal(bits);
    if (rounds) bits = rounded_to_tf32(bits);
    std::memcpy(bytes + i, &bits, 4);
  }
}

// Of what lies outside of the tensor: zeros, or a NaN that cvt would make.
void fill(const TensorMap& map, std::byte* bytes, std::uint32_t count) {
  const auto element = static_cast<std::uint32_t>(map.strides[0]);
  const bool nan = map.nan_fill && !is_wrong(WrongModel::nan_fill_is_zero);
  std::memset(bytes, nan ? 0xff : 0, count);
  if (!nan) return;
  for (std::uint32_t i = element - 1; i < count; i += element) bytes[i] = std::byte{0x7f};
}

Type reduced_type(MapType type) {
  switch (type) {
    case MapType::u8:
      return Type::u8;
    case MapType::u16:
      return Type::u16;
    case MapType::u32:
      return Type::u32;
    case MapType::s32:
      return Type::s32;
    case MapType::u64:
      return Type::u64;
    case MapType::s64:
      return Type::s64;
    case MapType::f16:
      return Type::f16;
    case MapType::bf16:
      return Type::bf16;
    case MapType::f64:
      return Type::f64;
    default:
      return Type::f32;
  }
}

}  // namespace

void load_box(Warp& warp, int lane, const TensorMap& map, const BoxStart& start, Block& block,
              std::uint32_t tile) {
  BoxRows rows(map, start);
  const auto element = static_cast<std::uint32_t>(map.strides[0]);
  std::vector<std::byte> bytes(rows.row_bytes());
  for (std::uint32_t i = 0; i < rows.count(); ++i) {
    const BoxRow row = rows.next();
    if (row.skipped) continue;
    fill(map, bytes.data(), rows.row_bytes());
    if (row.first < row.last) {
      const std::uint32_t inside = (row.last - row.first) * element;
      std::byte* to = bytes.data() + row.first * element;
      std::memcpy(to, global_place(warp, lane, row.address, inside), inside);
      convert(map.type, to, inside);
    }
    const std::uint32_t begin = i * rows.row_bytes();
    for (std::uint32_t at = 0; at < rows.row_bytes(); at += 16) {
      const std::uint32_t place = swizzled(tile + begin + at, tile, map.swizzle_bytes, Unit::tma);
      std::memcpy(block.shared.at(place), bytes.data() + at, 16);
      block.shared.mark_written(place, 16);
    }
  }
}

std::vector<std::byte> read_box(const TensorMap& map, Block& block, std::uint32_t tile) {
  std::vector<std::byte> box(box_bytes(map));
  for_each_chunk(map, tile, box_bytes(map), [&](std::uint32_t at, std::uint32_t place) {
    std::memcpy(box.data() + at, block.shared.at(place), 16);
  });
  return box;
}

void store_box(Warp& warp, int lane, const TensorMap& map, const BoxStart& start,
               const std::vector<std::byte>& box, AtomicOperation operation) {
  if (is_wrong(WrongModel::store_dropped)) return;
  BoxRows rows(map, start);
  const auto element = static_cast<std::uint32_t>(map.strides[0]);
  for (std::uint32_t i = 0; i < rows.count(); ++i) {
    const BoxRow row = rows.next();
    if (row.first == row.last) continue;
    const std::uint32_t bytes = (row.last - row.first) * element;
    std::byte* to = global_place(warp, lane, row.address, bytes);
    const std::byte* from = box.data() + i * rows.row_bytes() + row.first * element;
    if (operation == AtomicOperation::none) {
      std::memcpy(to, from, bytes);
      continue;
    }
    for (std::uint32_t at = 0; at < bytes; at += element) {
      std::uint64_t value = 0;
      std::memcpy(&value, from + at, element);
      atomic_on_memory(to + at, operation, reduced_type(map.type), value);
    }
  }
}

std::uint32_t counted_bytes(const TensorMap& map, const BoxStart& start) {
  if (!is_wrong(WrongModel::bytes_inside_only)) return box_bytes(map);
  BoxRows rows(map, start);
  std::uint32_t bytes = 0;
  for (std::uint32_t i = 0; i < rows.count(); ++i) {
    const BoxRow row = rows.next();
    bytes += (row.last - row.first) * static_cast<std::uint32_t>(map.strides[0]);
  }
  return bytes;
}

}  // namespace cnnkernels::emulator
