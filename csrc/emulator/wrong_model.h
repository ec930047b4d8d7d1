// Models of the hardware that are wrong on purpose. Kernels of others must notice each: that is what the
// right ones are believed for (tests/emulator/test_wrong_models.py). Never on outside of those tests.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

namespace cnnkernels::emulator {

enum class WrongModel : std::uint8_t {
  none,
  // shared memory's swizzle
  swizzle_ignored_by_tma,
  swizzle_ignored_by_wgmma,
  swizzle_ignored,
  swizzle_mirrored,     // the row's bits in reverse
  swizzle_rows_of_256,  // the row's bits one too high
  swizzle_from_tile,    // of the offset in the tile, not of the address
  swizzle64_by_row,     // each row of 64 bytes moves on, not each 128
  swizzle32_by_row,
  // wgmma's descriptor, fragments and groups
  strides_swapped_k_major,  // leading and stride byte offset, no swizzle
  strides_swapped_mn_major,
  strides_swapped_mn_major_swizzled,
  stride_offset_ignored,   // K-major and swizzled: rows as dense as they go
  leading_offset_ignored,  // MN-major and swizzled
  accumulator_pairs_swapped,
  warps_rows_swapped,  // of warps 1 and 2
  scale_d_ignored,
  negation_ignored,
  wait_is_early,  // wait_group does not wait for the other warps' products
  // mma.sync's companions
  ldmatrix_never_transposes,
  stmatrix_transposes_backwards,
  // tensor maps
  box_clamped,          // the nearest pixel where there is none
  box_keeps_old_bytes,  // nothing written where there is no pixel
  element_stride_ignored,
  box_counts_elements,  // not steps
  box_order_reversed,   // the outermost dimension runs first
  nan_fill_is_zero,
  tf32_copied,  // not rounded
  im2col_height_first,
  im2col_stride_ignored,
  im2col_upper_inclusive,
  im2col_upper_ignored,
  im2col_wraps_to_zero,
  im2col_wraps_to_start,
  im2col_never_next_image,
  im2col_offsets_swapped,
  im2col_offsets_ignored,
  im2col_offsets_strided,
  im2col_offsets_negative,
  replace_ignored,  // tensormap.replace of sizes
  // mbarriers, copies
  bytes_inside_only,  // a box counts the bytes that lie in the tensor
  multicast_to_first_only,
  multicast_signals_issuer,
  barrier_ignores_bytes,
  barrier_parity_inverted,
  barrier_never_waits,
  expect_never_arrives,
  store_dropped,
  mapa_is_identity,
  // numbers
  rounds_to_zero,  // what .rn rounds
  count
};

inline std::atomic<WrongModel> current_wrong_model{WrongModel::none};

inline bool is_wrong(WrongModel which) {
  return current_wrong_model.load(std::memory_order_relaxed) == which;
}
inline bool any_wrong() { return !is_wrong(WrongModel::none); }

std::vector<std::string_view> wrong_models();
void set_wrong_model(std::string_view name);  // "" is the right one; std::invalid_argument at an unknown name

}  // namespace cnnkernels::emulator
