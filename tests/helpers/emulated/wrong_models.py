"""What the models of the hardware say, and whose kernels prove it: they are right on GPUs, and wrong in the emulator
once it says otherwise (csrc/emulator/wrong_model.h has a model that does for each). The table of docs/emulator.md."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    says: str
    triton: str | None = None  # the case that notices the wrong model: of helpers/triton_cases
    cutlass: str | None = None  # of helpers/emulated/cutlass.py


TILE = "one f16 tile"
COPY = "TMA, one tile"
CLUSTERS = "GEMM of clusters"

FACTS = {
    "swizzle_ignored_by_tma": Fact("TMA swizzles", COPY, "fprop"),
    "swizzle_ignored_by_wgmma": Fact("wgmma reads swizzled", TILE, "fprop"),
    "swizzle_ignored": Fact("so that both agree with what threads write and read", TILE, CLUSTERS),
    "swizzle_mirrored": Fact("which bits of the row are exchanged with which of the chunk", TILE, CLUSTERS),
    "swizzle_rows_of_256": Fact("the row of the swizzle is the address's 128 bytes", TILE, CLUSTERS),
    "swizzle_from_tile": Fact("it is of the address, wherever the tile begins", TILE, "fprop"),
    "swizzle64_by_row": Fact("two rows of 64 bytes are swizzled alike", "f16, swizzle of 64 bytes", CLUSTERS),
    "swizzle32_by_row": Fact(
        "four rows of 32 bytes are swizzled alike", "f16, swizzle of 32 bytes", "GEMM of TF32 along M and N"
    ),
    "strides_swapped_k_major": Fact(
        "K-major without swizzle: leading offset along K, stride offset along rows", cutlass="GEMM, no swizzle"
    ),
    "strides_swapped_mn_major": Fact(
        "MN-major without swizzle: stride offset along M or N, leading offset along K",
        cutlass="GEMM, no swizzle, negated",
    ),
    "strides_swapped_mn_major_swizzled": Fact(
        "MN-major with swizzle: leading offset along M or N, stride offset along K",
        "f16, A M-major, B N-major",
        "dgrad",
    ),
    "stride_offset_ignored": Fact(
        "K-major with swizzle: eight rows lie a stride offset from the next eight", cutlass="GEMM, rows apart"
    ),
    "leading_offset_ignored": Fact(
        "MN-major with swizzle: spans lie a leading offset apart", "f16, 64 x 256", "GEMM along M and N"
    ),
    "accumulator_pairs_swapped": Fact("which register of D holds which element", TILE, "fprop"),
    "warps_rows_swapped": Fact("which warp of a warpgroup has which rows", TILE, "fprop"),
    "scale_d_ignored": Fact("scale-d 0 leaves the accumulator out", "wgmma of an accumulator"),
    "negation_ignored": Fact("a factor of -1 negates an operand", cutlass="GEMM, no swizzle, negated"),
    "wait_is_early": Fact("wgmma's wait waits for all four warps", cutlass=CLUSTERS),
    "ldmatrix_never_transposes": Fact("ldmatrix transposes", "mma.sync f16, transposed operands"),
    "stmatrix_transposes_backwards": Fact("and stmatrix is its inverse", COPY, CLUSTERS),
    "box_clamped": Fact("what lies outside of a tensor is filled", "TMA that fills with NaN", "fprop"),
    "box_keeps_old_bytes": Fact("and written", "TMA copy f16", "fprop"),
    "element_stride_ignored": Fact("a tiled box goes in steps of the element stride"),
    "box_counts_elements": Fact("and its size counts elements, not steps"),
    "box_order_reversed": Fact("the innermost dimension runs first", "TMA load of three dimensions"),
    "nan_fill_is_zero": Fact("the fill may be NaN", "TMA that fills with NaN"),
    "tf32_copied": Fact("a map of TF32 rounds"),
    "im2col_height_first": Fact("im2col goes along the width first", cutlass="wgrad"),
    "im2col_stride_ignored": Fact("in steps of the element stride", cutlass="fprop, strided and dilated"),
    "im2col_upper_inclusive": Fact("up to the size and the upper corner, not beyond", cutlass="fprop"),
    "im2col_upper_ignored": Fact("which counts", cutlass="fprop"),
    "im2col_wraps_to_zero": Fact("begins again at the lower corner, not at 0", cutlass="fprop"),
    "im2col_wraps_to_start": Fact("nor where the copy began", cutlass="fprop"),
    "im2col_never_next_image": Fact("then goes on in the next image", cutlass="fprop"),
    "im2col_offsets_swapped": Fact("its offsets are the width's, then the height's", cutlass="fprop"),
    "im2col_offsets_ignored": Fact("they count", cutlass="fprop"),
    "im2col_offsets_strided": Fact("pixels, not steps", cutlass="fprop, strided and dilated"),
    "im2col_offsets_negative": Fact("and are added", cutlass="fprop"),
    "replace_ignored": Fact("tensormap.replace changes a map", "maps made by the kernel"),
    "bytes_inside_only": Fact("a box counts all of its bytes, wherever they come from", "TMA copy f16", "fprop"),
    "multicast_to_first_only": Fact(
        "multicast reaches every block of its mask", "multicast in a cluster of two", "fprop, multicast"
    ),
    "multicast_signals_issuer": Fact("and signals the mbarrier of each", "multicast in a cluster of two", CLUSTERS),
    "barrier_ignores_bytes": Fact("a phase of an mbarrier waits for its bytes", COPY, "fprop"),
    "barrier_parity_inverted": Fact("a wait names the parity of the phase that is to be over", COPY, "fprop"),
    "barrier_never_waits": Fact("and waits", COPY, "fprop"),
    "expect_never_arrives": Fact("arrive.expect_tx arrives", COPY, "fprop"),
    "store_dropped": Fact("TMA stores", COPY, CLUSTERS),
    "mapa_is_identity": Fact("mapa names another block's shared memory", cutlass=CLUSTERS),
    "rounds_to_zero": Fact(".rn rounds to the nearest"),
}
