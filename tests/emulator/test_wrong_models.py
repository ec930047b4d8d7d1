"""Models of the hardware that are wrong on purpose: which kernel of others' compilers notices each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cnnkernels import _emulator
from helpers.emulator import run_case
from helpers.triton_cases.cases import CASES

BY_NAME = {case.name: case for case in CASES}
QUICK = [case.name for case in CASES if case.grid == (1, 1, 1)]

# Wrong model: the case that notices it. What it gets wrong is proven by the kernel's being right on every GPU.
NOTICED = {
    "swizzle_ignored_by_tma": "TMA, one tile",
    "swizzle_ignored_by_wgmma": "one f16 tile",
    "swizzle_ignored": "one f16 tile",
    "swizzle_mirrored": "one f16 tile",
    "swizzle_rows_of_256": "one f16 tile",
    "swizzle_from_tile": "one f16 tile",
    "swizzle64_by_row": "f16, swizzle of 64 bytes",
    "swizzle32_by_row": "f16, swizzle of 32 bytes",
    "strides_swapped_mn_major_swizzled": "f16, A M-major, B N-major",
    "leading_offset_ignored": "f16, 64 x 256",
    "accumulator_pairs_swapped": "one f16 tile",
    "warps_rows_swapped": "one f16 tile",
    "scale_d_ignored": "wgmma of an accumulator",
    "ldmatrix_never_transposes": "mma.sync f16, transposed operands",
    "stmatrix_transposes_backwards": "TMA, one tile",
    "box_clamped": "TMA that fills with NaN",
    "box_keeps_old_bytes": "TMA copy f16",
    "box_order_reversed": "TMA load of three dimensions",
    "nan_fill_is_zero": "TMA that fills with NaN",
    "replace_ignored": "maps made by the kernel",
    "bytes_inside_only": "TMA copy f16",
    "multicast_to_first_only": "multicast in a cluster of two",
    "multicast_signals_issuer": "multicast in a cluster of two",
    "barrier_ignores_bytes": "TMA, one tile",
    "barrier_parity_inverted": "TMA, one tile",
    "barrier_never_waits": "TMA, one tile",
    "expect_never_arrives": "TMA, one tile",
    "store_dropped": "TMA, one tile",
}

# Models that no kernel of Triton's notices: what they get wrong is proven by nobody's kernel here. The first questions
# to a GPU; CUTLASS's convolutions, where somebody builds them, would answer those about im2col.
NO_IM2COL = "Triton 3.7 has no im2col"
PROVEN_BY_NONE = {
    "strides_swapped_k_major": "Triton takes no operand without swizzle",
    "strides_swapped_mn_major": "Triton takes no operand without swizzle",
    "stride_offset_ignored": "Triton's rows lie as densely as they go",
    "negation_ignored": "Triton negates nothing",
    "wait_is_early": "Triton puts a barrier of the block between a wait and what needs it",
    "element_stride_ignored": "Triton's boxes are dense",
    "box_counts_elements": "Triton's boxes are dense",
    "tf32_copied": "Triton copies f32 as it is",
    "im2col_height_first": NO_IM2COL,
    "im2col_stride_ignored": NO_IM2COL,
    "im2col_upper_inclusive": NO_IM2COL,
    "im2col_upper_ignored": NO_IM2COL,
    "im2col_wraps_to_zero": NO_IM2COL,
    "im2col_wraps_to_start": NO_IM2COL,
    "im2col_never_next_image": NO_IM2COL,
    "im2col_offsets_swapped": NO_IM2COL,
    "im2col_offsets_ignored": NO_IM2COL,
    "im2col_offsets_strided": NO_IM2COL,
    "im2col_offsets_negative": NO_IM2COL,
    "mapa_is_identity": "Triton 3.7 compiles no exchange between blocks for sm_90",
    "rounds_to_zero": "sums here are exact, and conversions are tested by themselves",
}


@pytest.fixture
def wrong() -> Iterator[None]:
    yield
    _emulator.set_wrong_model("")


def test_every_wrong_model_is_listed():
    assert sorted([*NOTICED, *PROVEN_BY_NONE]) == sorted(_emulator.wrong_models())


def notices(name: str) -> bool:
    try:
        return run_case(BY_NAME[name], races=False) != []
    except _emulator.EmulatorFault:
        return True


@pytest.mark.parametrize("model", NOTICED)
@pytest.mark.usefixtures("wrong")
def test_wrong_model_is_noticed(model):
    assert not notices(NOTICED[model])
    _emulator.set_wrong_model(model)
    assert notices(NOTICED[model])


@pytest.mark.parametrize("model", PROVEN_BY_NONE)
@pytest.mark.usefixtures("wrong")
def test_what_nobody_proves_is_said(model):
    """Should a case notice one, it belongs into the other table. Cases of many blocks were tried once, by hand."""
    _emulator.set_wrong_model(model)
    assert not [name for name in QUICK if notices(name)]
