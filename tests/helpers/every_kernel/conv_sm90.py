"""conv2d's kernels for Hopper: every tile, each span of channels that a stage takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import small_integers
from helpers.conv import DIRECTIONS, ConvRunner
from helpers.conv import ELEMENTS as TYPES
from helpers.conv_sm90 import CLUSTERS, TILES, plan
from helpers.every_kernel import Trial, emulated, module
from helpers.every_kernel.conv import check, expected, operands, with_epilogue

ELEMENTS = {"float16": ("fp16", 2), "bfloat16": ("bf16", 2), "tf32": ("tf32", 4)}
SHORT_SPANS = ["256x128", "256x64", "128x64", "128x128 ping-pong"]  # tiles with kernels of 32 and 64 bytes
# Bytes of channels, and as many filters, of windows that take more stages than a ring has.
WINDOWS = {128: (3, 3), 64: (4, 4), 32: (6, 5)}


def case_of(span: int, size: int) -> ConvCase:
    """Two row tiles of 128 pixels, the second not whole."""
    (r, s), channels = WINDOWS[span], span // size
    return ConvCase(
        f"{span} bytes", 5, channels, 5, 6, channels, r, s, padding=(r // 2, (r - 1) // 2, s // 2, (s - 1) // 2)
    )


def run(direction: str, element: str, case: ConvCase, tile: str, splits: int = 1) -> None:
    """One block, or one cluster, takes all tiles in turn."""
    runner = ConvRunner(module(), "cpu")
    check(direction, case, Layout.NHWC, element, plan(runner, tile, splits, 2 if tile in CLUSTERS else 1))


def run_and_epilogue(element: str, case: ConvCase, tile: str) -> None:
    with_epilogue(case, Layout.NHWC, element, plan(ConvRunner(module(), "cpu"), tile, 1, 2 if tile in CLUSTERS else 1))


def run_and_bias(element: str, case: ConvCase, tile: str) -> None:
    """A transposed convolution's: sums go through shared memory in fp32."""
    dy, w = operands(case).operands("backward_input")
    dtype, _, tf32 = TYPES[element]
    bias = small_integers((case.c,), torch.float64, 9)
    given = [t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (dy, w)]
    found = torch.full(case.input_shape, float("nan"), dtype=dtype).contiguous(memory_format=torch.channels_last)
    chosen = plan(ConvRunner(module(), "cpu"), tile, 1, 2 if tile in CLUSTERS else 1)
    emulated().conv_backward_input(*given, found, case.geometry, Layout.NHWC, tf32, chosen, bias.to(dtype))
    assert torch.equal(found, (expected(case, "backward_input") + bias[:, None, None]).to(dtype)), chosen


def larger(source: str) -> Iterator[Trial]:
    """Every path of a kernel's store, to the last column of its tile: sums rounded in blocks, sums that something
    follows, strided phases, parts. For removed.py; too much for every kernel."""
    for name, (element, size) in ELEMENTS.items():
        if source != f"conv/sm90/{name}.cu":
            continue
        channels = 128 // size
        wide = ConvCase("many filters", 5, channels, 5, 6, 264, 3, 3, padding=(1, 1, 1, 1))
        deep = ConvCase("many channels", 5, 264, 5, 6, channels, 3, 3, padding=(1, 1, 1, 1))
        strided = ConvCase("phases", 5, 264, 9, 11, channels, 3, 3, (2, 2), padding=(1, 1, 1, 1))
        for tile in TILES + CLUSTERS:
            yield Trial(f"forward of {tile}, {wide}", partial(run, "forward", element, wide, tile))
            yield Trial(f"{tile}, {wide}, epilogue", partial(run_and_epilogue, element, wide, tile))
            if element == "tf32":
                continue
            yield Trial(f"backward_input of {tile}, {deep}, bias", partial(run_and_bias, element, deep, tile))
            for case in (deep, strided):
                yield Trial(f"backward_input of {tile}, {case}", partial(run, "backward_input", element, case, tile))
            for splits in (1, 2):
                name = f"backward_weight of {tile} in {splits}"
                yield Trial(name, partial(run, "backward_weight", element, wide, tile, splits))


def trials(source: str) -> Iterator[Trial]:
    for name, (element, size) in ELEMENTS.items():
        if source != f"conv/sm90/{name}.cu":
            continue
        for direction in DIRECTIONS if element != "tf32" else ["forward"]:
            for tile in TILES + CLUSTERS:
                spans = WINDOWS if tile in SHORT_SPANS and direction != "backward_weight" else [128]
                for span in spans:
                    case = case_of(span, size)
                    yield Trial(f"{direction} of {tile}, {case}", partial(run, direction, element, case, tile))
                    if direction == "forward" and element != "tf32":
                        yield Trial(f"{tile}, {case}, epilogue", partial(run_and_epilogue, element, case, tile))
