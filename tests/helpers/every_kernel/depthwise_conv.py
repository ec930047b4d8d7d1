"""depthwise_conv2d's kernels: every walk by vectors, slabs and elements, and bands by tensor cores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import torch

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import depthwise
from helpers.conv import DIRECTIONS, integers
from helpers.depthwise_conv import DepthwiseRunner, check
from helpers.every_kernel import Trial, module

NCHW, NHWC = Layout.NCHW, Layout.NHWC
ELEMENTS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
ONE_BLOCK = {"splits": 1, "lanes": 1, "tiles": 1, "workers": 32}
WALKS = [*[(stride, chunk) for stride in (1, 2) for chunk in (0, 3, 5)], (1, 7), (3, 0)]
BANDS = [
    depthwise("rows of several images", 3, 8, (5, 7), (13, 13), padding=(6, 6)),
    depthwise("longer filters", 1, 2, (9, 29), (31, 31), padding=(15, 15)),
]
# What is infinite has no part in some of the sums, and yet a tensor core makes NaN of them.
WIDE = [
    depthwise("13x13 on a wider plane", 1, 8, (5, 29), (13, 13), padding=(6, 6)),
    depthwise("31x31 on a wider plane", 1, 2, (5, 29), (31, 31), padding=(15, 15)),
]


def run_walk(
    direction: str, element: str, access: str, stride: int, chunk: int, images: int = 1, **changes: int
) -> None:
    runner = DepthwiseRunner(module(), "cpu")
    layout = NCHW if access == "slab" else NHWC
    taps = chunk if access == "slab" and chunk > 3 else 7
    case = depthwise("", images, 8, (9, 8), (taps, taps), (stride, stride), (3, 2))
    plan = runner.plan(direction, case, layout, element, chunk=chunk)
    for name, number in changes.items():
        setattr(plan, name, number)
    if access == "element":
        plan.vector, plan.lanes = 1, 2
    check(runner, direction, case, layout, element, plan)


def run_band(direction: str, element: str, case: ConvCase, tiles: int) -> None:
    runner = DepthwiseRunner(module(), "cpu")
    changes = {"tiles": tiles, "lanes": 2, "images": 1, "strips": 3} if direction == "forward" else {"splits": 1}
    plan = runner.plan(direction, case, NHWC, element, **changes)
    assert plan.band
    check(runner, direction, case, NHWC, element, plan)


def widest_chunk(element: str, access: str, direction: str, stride: int) -> int:
    widest = 0 if access == "element" else {"fp64": 3, "fp32": 5}.get(element, 7)
    return min(widest, 3) if access == "slab" and direction == "backward_input" and stride == 2 else widest


def run_infinite(element: str, case: ConvCase, tiles: int) -> None:
    """Planes that are not finite are made anew."""
    runner = DepthwiseRunner(module(), "cpu")
    image, filters = integers(case).operands("forward")
    image = image.clone()
    image[0, 0, 0, 0] = torch.inf
    plan = runner.plan("forward", case, NHWC, element, tiles=tiles, lanes=2, images=1, strips=3)
    result = runner.run("forward", case, NHWC, element, (image, filters), plan)
    assert not result[0, 0].isfinite().all()


def larger(source: str) -> Iterator[Trial]:
    """More taps than are held at a time, several rounds of a block, more workers than one thread adds the sums of."""
    for name, element in ELEMENTS.items():
        if source != f"depthwise_conv/kernels_{name}.cu":
            continue
        for stride, chunk in WALKS:
            if chunk <= widest_chunk(element, "vector", "forward", stride):
                of = partial(run_walk, "forward", element, "vector", stride, chunk, lanes=32, strips=2, lines=4)
                yield Trial(f"stride {stride}, chunk {chunk}, batches of taps", of)
            for access in ("vector", "slab"):
                if chunk <= widest_chunk(element, access, "backward_weight", stride):
                    of = partial(run_walk, "backward_weight", element, access, stride, chunk, 3, **ONE_BLOCK)
                    yield Trial(f"{access}, stride {stride}, chunk {chunk}, many workers", of)
        for case, tiles in itertools.product(WIDE if element in ("fp16", "bf16") else [], (1, 2, 4, 7)):
            yield Trial(f"{case}, {tiles} tiles, not finite", partial(run_infinite, element, case, tiles))


def trials(source: str) -> Iterator[Trial]:
    for name, element in ELEMENTS.items():
        if source != f"depthwise_conv/kernels_{name}.cu":
            continue
        for direction in DIRECTIONS:
            for access in ("vector", "slab", "element"):
                for stride, chunk in WALKS:
                    if chunk <= widest_chunk(element, access, direction, stride):
                        what = f"{direction} by {access}, stride {stride}, chunk {chunk}"
                        yield Trial(what, partial(run_walk, direction, element, access, stride, chunk))
        for case in BANDS if element in ("fp16", "bf16") else []:
            for tiles in (1, 2, 4, 7):
                yield Trial(f"{case}, {tiles} tiles", partial(run_band, "forward", element, case, tiles))
            yield Trial(f"filters of {case}", partial(run_band, "backward_weight", element, case, 0))
