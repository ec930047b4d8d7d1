"""int8_conv2d's Triton kernels: equal to an integer convolution and the written formula bit by bit, for every
configuration, the kernels of narrow groups, and each way that a launch takes."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys

import pytest
import torch
from cnnkernels.triton_kernels.common import geometry
from cnnkernels.triton_kernels.int8 import pack as int8_pack
from cnnkernels.triton_kernels.int8_gemm import select as int8_gemm_select
from cnnkernels.triton_kernels.int8_gemm.select import Configuration
from torch import Tensor

from cnnkernels import triton_kernels as kernels
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.testing.cases import CONV2D, ConvCase
from cnnkernels.testing.guarded import guarded
from helpers.device import DEVICE, HAS_GPU
from helpers.int8 import columns_last, convolution
from helpers.int8_formula import EXACT_ACTIVATIONS, bytes_of, finished, floats

UINT8, INT8, INT32 = torch.uint8, torch.int8, torch.int32
TILED = ConvCase("several steps a tap", 1, 68, 7, 6, 20, 3, 3, padding=(1, 1, 1, 1))
UNEVEN = ConvCase("uneven everything", 2, 9, 11, 8, 10, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1))
GROUPED = ConvCase("groups of five and seven", 2, 10, 7, 6, 14, 3, 3, (2, 1), (1, 1, 1, 1), groups=2)
STEM = ConvCase("stem of 3 channels", 1, 3, 11, 13, 8, 7, 7, (2, 2), (3, 3, 3, 3))
INSIDE = ConvCase("windows stay inside", 2, 16, 6, 7, 24, 2, 3, (1, 2))
RIGHT = ConvCase("padding after the last column alone", 1, 8, 5, 6, 4, 2, 3, padding=(0, 0, 0, 2))
BELOW = ConvCase("padding after the last row alone", 1, 8, 5, 6, 4, 2, 3, padding=(0, 1, 0, 0))
PAIRS = ConvCase("groups of two", 2, 8, 5, 6, 8, 3, 2, padding=(1, 1, 1, 0), groups=4)
TRIPLED = ConvCase("depthwise times three", 2, 5, 9, 8, 15, 3, 3, (2, 1), (1, 1, 1, 1), groups=5)
LARGE_STEPS = ConvCase("depthwise of stride 5", 1, 6, 17, 16, 6, 5, 5, (5, 5), (2, 2, 2, 2), (2, 1), groups=6)
module = importlib.import_module(
    "cnnkernels.triton_kernels.int8_conv.launch"
)  # the name is its function's in the package


def place(tensor: Tensor) -> Tensor:
    return tensor.to(DEVICE).contiguous(memory_format=torch.channels_last)


def everything(case: ConvCase) -> Int8Epilogue:
    return Int8Epilogue(
        scale_a=0.0021, scale_b=floats(case.k, 2, 0.1, 1.0), zero_point_a=5, bias=floats(case.k, 3),
        residual=bytes_of(case.output_shape, INT8, 4), residual_scale=0.013, residual_zero_point=-7,
        negative_slope=0.3, out_scale=0.05, out_zero_point=11,
    )  # fmt: skip


def check(
    case: ConvCase,
    e: Int8Epilogue = Int8Epilogue(),  # noqa: B008
    dtype: torch.dtype = INT32,
    input_dtype: torch.dtype = INT8,
    configuration: Configuration | None = None,
) -> None:
    x, w = bytes_of(case.input_shape, input_dtype, 1), bytes_of(case.weight_shape, INT8, 2)
    sums = columns_last(convolution(case, x, w, e.zero_point_a))
    expected = finished(sums, e, dtype, None if e.residual is None else columns_last(e.residual))
    output = place(torch.full(case.output_shape, 77).to(dtype))
    there = {name: v.to(DEVICE) for name, v in e._asdict().items() if isinstance(v, Tensor)}
    if e.residual is not None:
        there["residual"] = place(e.residual)
    kernels.int8_conv(place(x), place(w), output, case.geometry, e._replace(**there), configuration)
    assert torch.equal(columns_last(output.cpu()), expected)


# Without the large ones, which are slow.
@pytest.mark.parametrize("case", [c for c in CONV2D if math.prod(c.output_shape) < 5000], ids=str)
def test_the_common_cases_are_exact(case: ConvCase) -> None:
    check(case, Int8Epilogue(zero_point_a=3), input_dtype=UINT8)


@pytest.mark.parametrize("case", [UNEVEN, GROUPED, STEM, PAIRS, TRIPLED, RIGHT, BELOW], ids=str)
@pytest.mark.parametrize(
    ("dtype", "zero_point"), [(INT8, 0), (INT8, -128), (UINT8, 0), (UINT8, 128), (UINT8, 255)], ids=str
)
def test_padding_stands_for_the_zero_point(case: ConvCase, dtype: torch.dtype, zero_point: int) -> None:
    check(case, Int8Epilogue(zero_point_a=zero_point), input_dtype=dtype)


@pytest.mark.parametrize("case", [UNEVEN, PAIRS, TRIPLED, INSIDE], ids=str)
def test_the_epilogue_is_the_written_formula(case: ConvCase) -> None:
    """Of a product, of the kernels of narrow groups, and where no window leaves the image."""
    for activation in EXACT_ACTIVATIONS:
        check(case, everything(case)._replace(activation=activation), INT8)
    for dtype in (torch.float32, torch.bfloat16, UINT8):
        check(case, everything(case)._replace(activation="relu", out_scale=torch.tensor([0.05])), dtype, UINT8)


@pytest.mark.skipif(HAS_GPU, reason="guard pages are a CPU's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("case", [UNEVEN, GROUPED, STEM, INSIDE, PAIRS, TRIPLED], ids=str)
def test_nothing_beside_the_tensors_is_touched(monkeypatch: pytest.MonkeyPatch, case: ConvCase, after: bool) -> None:
    """(A kernel that reads on ends the process.)"""
    put = lambda tensor: guarded(tensor.contiguous(memory_format=torch.channels_last), after)  # noqa: E731
    monkeypatch.setattr(sys.modules[__name__], "place", put)
    check(case, everything(case), INT8)


def every_configuration() -> list[Configuration]:
    problems = [module.problem_of(TILED.geometry._replace(n=4096), arch) for arch in (0, 80, 90, 100)]
    return list(dict.fromkeys(c for p in problems for c in int8_gemm_select.candidates(p)))


@pytest.mark.parametrize("configuration", every_configuration(), ids=str)
def test_every_configuration(configuration: Configuration) -> None:
    """On a tile and a part of one, in several steps a tap, and on channels flattened with taps in groups."""
    tiled = dataclasses.replace(TILED, n=1 + configuration.block_m // 42)
    check(tiled, everything(tiled), INT8, configuration=configuration)
    check(GROUPED, everything(GROUPED), INT8, UINT8, configuration)


def test_sums_of_the_filters_may_be_given() -> None:
    w = bytes_of(UNEVEN.weight_shape, INT8, 2)
    check(UNEVEN, everything(UNEVEN)._replace(sums_b=w.sum((1, 2, 3), dtype=INT32)), INT8)


@pytest.mark.parametrize("case", [STEM, GROUPED], ids=str)
def test_copied_channels(monkeypatch: pytest.MonkeyPatch, case: ConvCase) -> None:
    monkeypatch.setattr(int8_gemm_select, "PACKED_USES", 1)
    monkeypatch.setattr(int8_gemm_select, "PACKED_BYTES", range(2**29))
    assert module._copy_pays(case.geometry)
    check(case, everything(case), INT8)
    check(case, everything(case), INT8, UINT8)


@pytest.mark.parametrize("case", [UNEVEN, PAIRS, TRIPLED, STEM], ids=str)
def test_64_bit_arithmetic_and_a_batch_in_slices(monkeypatch: pytest.MonkeyPatch, case: ConvCase) -> None:
    case = dataclasses.replace(case, n=3)
    for images in (0, 1, 2):
        larger = max(math.prod(case.input_shape), math.prod(case.output_shape)) // case.n
        largest = images * larger + max(geometry.overhang(case.geometry)) if images else 0
        for source in (geometry, int8_pack):
            monkeypatch.setattr(source, "LARGEST_INDEX", largest)
        assert geometry.most_images(case.geometry) == max(1, images)
        check(case, everything(case), INT8)


def test_strides_that_no_patch_serves() -> None:
    check(LARGE_STEPS, everything(LARGE_STEPS), INT8)


def test_a_filter_that_covers_the_image_and_a_plain_1x1_are_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "_implicit")
    for case in (ConvCase("", 2, 8, 5, 4, 12, 5, 4), ConvCase("", 2, 16, 5, 6, 24, 1, 1)):
        check(case, everything(case), INT8)
