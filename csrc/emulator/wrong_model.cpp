#include "emulator/wrong_model.h"

#include <stdexcept>
#include <string>

#include "emulator/swizzle.h"

namespace cnnkernels::emulator {
namespace {

constexpr std::string_view kNames[] = {
    "",
    "swizzle_ignored_by_tma",
    "swizzle_ignored_by_wgmma",
    "swizzle_ignored",
    "swizzle_mirrored",
    "swizzle_rows_of_256",
    "swizzle_from_tile",
    "swizzle64_by_row",
    "swizzle32_by_row",
    "strides_swapped_k_major",
    "strides_swapped_mn_major",
    "strides_swapped_mn_major_swizzled",
    "stride_offset_ignored",
    "leading_offset_ignored",
    "accumulator_pairs_swapped",
    "warps_rows_swapped",
    "scale_d_ignored",
    "negation_ignored",
    "wait_is_early",
    "ldmatrix_never_transposes",
    "stmatrix_transposes_backwards",
    "box_clamped",
    "box_keeps_old_bytes",
    "element_stride_ignored",
    "box_counts_elements",
    "box_order_reversed",
    "nan_fill_is_zero",
    "tf32_copied",
    "im2col_height_first",
    "im2col_stride_ignored",
    "im2col_upper_inclusive",
    "im2col_upper_ignored",
    "im2col_wraps_to_zero",
    "im2col_wraps_to_start",
    "im2col_never_next_image",
    "im2col_offsets_swapped",
    "im2col_offsets_ignored",
    "im2col_offsets_strided",
    "im2col_offsets_negative",
    "replace_ignored",
    "bytes_inside_only",
    "multicast_to_first_only",
    "multicast_signals_issuer",
    "barrier_ignores_bytes",
    "barrier_parity_inverted",
    "barrier_never_waits",
    "expect_never_arrives",
    "store_dropped",
    "mapa_is_identity",
    "rounds_to_zero",
};
static_assert(std::size(kNames) == static_cast<std::size_t>(WrongModel::count));

std::uint32_t mirrored(std::uint32_t bits, std::uint32_t chunks) {
  std::uint32_t result = 0;
  for (std::uint32_t bit = 1; bit < chunks; bit *= 2) result = result * 2 + ((bits & bit) != 0);
  return result;
}

}  // namespace

std::vector<std::string_view> wrong_models() { return {std::begin(kNames) + 1, std::end(kNames)}; }

void set_wrong_model(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] != name) continue;
    current_wrong_model.store(static_cast<WrongModel>(i), std::memory_order_relaxed);
    return;
  }
  throw std::invalid_argument("no wrong model is named '" + std::string(name) + "'");
}

std::uint32_t wrongly_swizzled(std::uint32_t address, std::uint32_t tile, int span, Unit unit) {
  using enum WrongModel;
  const std::uint32_t chunks = static_cast<std::uint32_t>(span) / 16;
  if (is_wrong(swizzle_ignored) ||
      is_wrong(unit == Unit::tma ? swizzle_ignored_by_tma : swizzle_ignored_by_wgmma)) {
    return address;
  }
  std::uint32_t row = (address >> 7) % chunks;
  if (is_wrong(swizzle_mirrored)) row = mirrored(row, chunks);
  if (is_wrong(swizzle_rows_of_256)) row = (address >> 8) % chunks;
  if (is_wrong(swizzle_from_tile)) return tile + ((address - tile) ^ ((address - tile) >> 7) % chunks << 4);
  if (is_wrong(swizzle64_by_row) && span == 64) row = (address >> 6) % chunks;
  if (is_wrong(swizzle32_by_row) && span == 32) row = (address >> 5) % chunks;
  return address ^ row << 4;
}

}  // namespace cnnkernels::emulator
