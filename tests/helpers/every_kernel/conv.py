"""conv2d's kernels but Hopper's: every tile and pair of loaders, narrow groups, packing, and what finishes parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch

from cnnkernels.epilogue import Epilogue
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import small_integers
from helpers.conv import ELEMENTS, ConvRunner, Data, in_memory, integers
from helpers.conv_epilogue import SLOPE, numbers, reference
from helpers.conv_grouped import KINDS, plan
from helpers.conv_sm90 import plan as on_hopper
from helpers.every_kernel import Trial, emulated, module

NCHW, NHWC = Layout.NCHW, Layout.NHWC
SOURCES = {"fp64": "float64", "fp32": "float32", "tf32": "tf32", "fp16": "float16", "bf16": "bfloat16"}
LARGE = ConvCase("large", 1, 72, 9, 10, 136, 3, 2, padding=(1, 1, 1, 0))
LARGE_1X1 = ConvCase("large 1x1", 1, 264, 8, 10, 136, 1, 1)
STEM = ConvCase("stem", 3, 3, 15, 13, 40, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3))
PIXELS = ConvCase("many pixels", 3, 72, 9, 10, 136, 1, 1, padding=(1, 1, 1, 0))
# One problem for each pair of loaders that is compiled.
LOADERS = [
    ("along_depth", "along_depth", "forward", NHWC, LARGE),
    ("along_depth", "along_side", "backward_input", NHWC, LARGE),
    ("along_side", "along_side", "backward_weight", NHWC, PIXELS),
    ("along_side", "along_depth", "forward", NCHW, LARGE_1X1),
    ("elements", "along_depth", "forward", NCHW, LARGE),
    ("elements", "along_side", "backward_weight", NHWC, STEM),
    ("elements", "elements", "forward", NHWC, STEM),
]


@cache
def operands(case: ConvCase) -> Data:
    return integers(case)


@cache
def expected(case: ConvCase, direction: str) -> torch.Tensor:
    return operands(case).expected(direction, case)


def check(direction: str, case: ConvCase, layout: Layout, element: str, chosen: Any) -> None:
    runner = ConvRunner(module(), "cpu")
    result = runner.run(direction, case, layout, element, operands(case).operands(direction), chosen)
    assert torch.equal(result, expected(case, direction).to(result.dtype)), chosen


def with_epilogue(case: ConvCase, layout: Layout, element: str, chosen: Any) -> None:
    """Bias, scale, shift, residual and an activation: sums wait unrounded for what follows."""
    dtype, _, tf32 = ELEMENTS[element]
    given = numbers(case, dtype, "cpu", layout)
    x, w, b, scale, shift, residual = given.values()
    unwritten = torch.full(case.output_shape, float("nan"), dtype=dtype)
    output = unwritten.contiguous(memory_format=layout.memory_format)
    epilogue = Epilogue(scale, shift, residual, "leaky_relu", SLOPE)
    emulated().conv_forward(x, w, b, output, case.geometry, layout, tf32, chosen, epilogue)
    assert torch.equal(output, reference(case, given, "leaky_relu").to(dtype)), chosen


def tiled(element: str, tile: int, a: str, b: str, splits: int = 1, packing: str = "none") -> Any:
    return ConvRunner(module(), "cpu").plan(element, tile, a, b, splits, packing)


def run_tile(direction: str, case: ConvCase, layout: Layout, element: str, tile: int, a: str, b: str) -> None:
    check(direction, case, layout, element, tiled(element, tile, a, b))


def run_tile_and_epilogue(case: ConvCase, layout: Layout, element: str, tile: int, a: str, b: str) -> None:
    with_epilogue(case, layout, element, tiled(element, tile, a, b))


def of_tiles(element: str) -> Iterator[Trial]:
    for a, b, direction, layout, case in LOADERS:
        for tile in range(element == "fp64", 3):
            name = f"{direction} of {case}, tile {tile}, {a} and {b}"
            yield Trial(name, partial(run_tile, direction, case, layout, element, tile, a, b))
            if direction == "forward":
                yield Trial(f"{name}, epilogue", partial(run_tile_and_epilogue, case, layout, element, tile, a, b))


def of_groups(direction: str, case: ConvCase, element: str, blocks: int = 0) -> None:
    runner = ConvRunner(module(), "cpu")
    check(direction, case, NHWC, element, plan(runner, direction=direction, blocks=blocks))


def of_pixels(layout: Layout, dtype: torch.dtype) -> None:
    """The bias's gradient."""
    case = ConvCase("", 3, 1, 9, 33, 40, 1, 1)
    dy = small_integers(case.output_shape, torch.float64, seed=4)
    of_bias = torch.full((case.k,), float("nan"), dtype=dtype)
    given = in_memory(dy, layout).to(dtype)
    given = given.view(3, 9, 33, 40).permute(0, 3, 1, 2) if layout is NHWC else given.view(case.output_shape)
    emulated().conv_backward_bias(given, of_bias, case.geometry, layout)
    assert torch.equal(of_bias.double(), dy.sum((0, 2, 3)))


def in_parts(element: str) -> None:
    check("backward_weight", PIXELS, NHWC, element, tiled(element, 1, "along_side", "along_side", 3))


def packed(layout: Layout, size: tuple[int, int]) -> None:
    """Channels enough that planes are transposed in shared memory: of the image and, as Hopper's kernel stores no
    planes, of the result."""
    case = ConvCase("", 2, 35, *size, 37, 3, 3, padding=(1, 1, 1, 1))
    chosen = on_hopper(ConvRunner(module(), "cpu"))
    chosen.packing = module().ConvPacking.channels
    check("forward", case, layout, "fp16", chosen)


def at_the_border(layout: Layout, dtype: torch.dtype, channels: int) -> None:
    """An infinite tap, that some pixels of the border meet no window by: they stay finite, as PyTorch's do."""
    case = ConvCase("", 2, channels, 5, 6, 8, 3, 3, padding=(1, 1, 1, 1))
    dy, w = (
        small_integers(shape, torch.float64, seed=seed)
        for seed, shape in ((5, case.output_shape), (6, case.weight_shape))
    )
    w[0, 0, 0, 0] = math.inf
    memory = layout.memory_format
    dy_there, w_there = (torch.empty(t.shape, dtype=dtype).contiguous(memory_format=memory).copy_(t) for t in (dy, w))
    found = torch.full(case.input_shape, math.nan, dtype=dtype).contiguous(memory_format=memory)
    emulated().conv_backward_input(dy_there, w_there, found, case.geometry, layout, False)
    with torch.backends.mkldnn.flags(enabled=False):
        true = torch.nn.grad.conv2d_input(case.input_shape, w, dy, padding=1)
    assert true.isfinite().any() and not true.isfinite().all()
    assert torch.equal(found.double().nan_to_num(7), true.nan_to_num(7))


def larger(source: str) -> Iterator[Trial]:
    """Several patches of a block."""
    if source == "conv/grouped/kernels.cu":
        for element, case in itertools.product(("fp16", "bf16"), KINDS):
            yield Trial(f"{case} in {element} by one block", partial(of_groups, "forward", case, element, 1))


def trials(source: str) -> Iterator[Trial]:
    for element, name in SOURCES.items():
        if source == f"conv/implicit_gemm/{name}.cu":
            yield from of_tiles(element)
    if source == "conv/grouped/kernels.cu":
        for element in ("fp16", "bf16"):
            for case in KINDS:
                yield Trial(f"{case} in {element}", partial(of_groups, "forward", case, element))
            yield Trial(f"filters in {element}", partial(of_groups, "backward_weight", KINDS[0], element))
    if source == "conv/backward_bias.cu":
        for layout in Layout:
            for dtype in dict.fromkeys(dtype for dtype, *_ in ELEMENTS.values()):
                yield Trial(f"{layout.name} {dtype}", partial(of_pixels, layout, dtype))
    if source == "gemm/add_parts.cu":
        for element in ("fp64", "fp32", "fp16", "bf16"):
            yield Trial(element, partial(in_parts, element))
    if source == "common/missing_windows.cu":
        for layout, channels in ((NHWC, 16), (NHWC, 3), (NCHW, 3)):
            for dtype in dict.fromkeys(dtype for dtype, *_ in ELEMENTS.values()):
                yield Trial(f"{layout.name} {channels} {dtype}", partial(at_the_border, layout, dtype, channels))
    if source == "conv/packing/pack.cu":
        for layout, size in (
            (NCHW, (6, 7)),
            (NCHW, (8, 8)),
            (NHWC, (6, 7)),
        ):  # planes of whole runs of 16 bytes, and not
            yield Trial(f"{layout.name} of {size}", partial(packed, layout, size))
