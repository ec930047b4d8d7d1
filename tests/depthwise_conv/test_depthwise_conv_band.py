"""Large filters on tensor cores (csrc/depthwise_conv/band.h): exact on small integers in every direction, layout and
block, and where an infinity meets a zero of the band."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import pytest
import torch

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import depthwise
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import DIRECTIONS, convolve, floats
from helpers.depthwise_conv import TYPES, DepthwiseRunner, check
from helpers.device import DEVICE, HAS_GPU, MODULE

NCHW, NHWC = Layout.NCHW, Layout.NHWC
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
directions = pytest.mark.parametrize("direction", DIRECTIONS)

SHORT = depthwise("rows of several images in one instruction", 5, 8, (5, 7), (13, 13), padding=(6, 6))
CASES = [
    SHORT,
    depthwise("channels beyond a vector, images beyond an instruction", 2, 11, (19, 10), (17, 17), padding=(8, 8)),
    depthwise("31x31", 1, 2, (19, 29), (31, 31), padding=(15, 15)),
    depthwise("rows beyond a warp, no padding", 1, 4, (52, 33), (15, 31)),
    depthwise("taps beyond a tile of the gradient, wide rows", 1, 2, (9, 70), (35, 41), padding=(17, 22)),
    depthwise("padding above the filter", 1, 3, (3, 4), (13, 13), padding=(14, 13)),
]


@pytest.fixture(scope="module")
def runner() -> DepthwiseRunner:
    return DepthwiseRunner(native.load(MODULE).module, DEVICE)


@directions
@layouts
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_shape(runner: DepthwiseRunner, direction: str, layout: Layout, case: ConvCase) -> None:
    for element in ("bf16", "fp16")[: 2 if case is SHORT else 1]:
        plan = runner.plan(direction, case, layout, element)
        assert plan.band
        check(runner, direction, case, layout, element, plan)


# lanes, images, strips (rows), tiles
BLOCKS = [(1, 1, 3, 2), (3, 2, 5, 4), (2, 5, 5, 7), (8, 1, 4, 1)]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@layouts
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
def test_every_block(runner: DepthwiseRunner, direction: str, layout: Layout, block: tuple[int, ...]) -> None:
    """Extents that do not divide the result's; the bits are the same in all of them."""
    lanes, images, strips, tiles = block
    case = dataclasses.replace(SHORT, c=9, k=9, groups=9)
    data = floats(case, torch.float16)
    plan = runner.plan(direction, case, layout, "fp16", lanes=lanes, images=images, strips=strips, tiles=tiles)
    check(runner, direction, case, layout, "fp16", plan)
    first, second = data.operands(direction)
    chosen, other = (runner.run(direction, case, layout, "fp16", (first, second), how) for how in (None, plan))
    assert torch.equal(chosen, other)
    alone = dataclasses.replace(case, n=1)
    assert torch.equal(runner.run(direction, alone, layout, "fp16", (first[3:4], second))[0], chosen[3])


# lanes, strips (rows), workers, splits
SHARES = [(1, 5, 1, 1), (3, 2, 2, 4), (8, 3, 1, 20)]


@pytest.mark.parametrize("share", SHARES, ids=str)
@layouts
def test_every_share_of_the_weights_sum(runner: DepthwiseRunner, layout: Layout, share: tuple[int, ...]) -> None:
    """Also more splits than there are rounds: the surplus adds zeros."""
    lanes, strips, workers, splits = share
    changes = {"lanes": lanes, "strips": strips, "workers": workers, "splits": splits}
    case = dataclasses.replace(SHORT, c=9, k=9, groups=9)
    check(
        runner,
        "backward_weight",
        case,
        layout,
        "bf16",
        runner.plan("backward_weight", case, layout, "bf16", **changes),
    )


@directions
@layouts
def test_every_schedule(
    runner: DepthwiseRunner, schedules: list[dict[str, Any]], direction: str, layout: Layout
) -> None:
    """A missing barrier shows as poison or as wrong numbers in one of these orders."""
    plan = runner.plan(direction, SHORT, layout, "bf16")
    if direction == "backward_weight":
        plan.splits, plan.strips = 2, 3  # several rounds of a block
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        check(runner, direction, SHORT, layout, "bf16", plan)


@pytest.mark.parametrize("element", ["fp16", "bf16"])
@layouts
@directions
def test_rounding(runner: DepthwiseRunner, direction: str, layout: Layout, element: str) -> None:
    """At most twice the error of PyTorch's own operator in the same type: sums are fp32."""
    torch_dtype, _ = TYPES[element]
    data = floats(SHORT, torch_dtype)
    operands = data.operands(direction)
    theirs = convolve(direction, SHORT, *(t.to(torch_dtype) for t in operands))
    magnitude = convolve(direction, SHORT, *(t.abs() for t in operands))
    g, reference = SHORT.geometry, data.expected(direction, SHORT)
    reduction = g.n * g.p * g.q if direction == "backward_weight" else g.r * g.s
    result = runner.run(direction, SHORT, layout, element, operands)
    bound = rounding_bound(reference, theirs, reduction, magnitude, torch_dtype)
    assert_within(result, reference, bound, f"{direction} {element}")


@pytest.mark.parametrize("value", [math.inf, math.nan], ids=str)
@directions
@layouts
def test_what_is_not_finite_reaches_what_it_should(
    runner: DepthwiseRunner, direction: str, layout: Layout, value: float
) -> None:
    """A zero of the band is no factor, one around an image is (test_not_finite.py): such planes are summed tap by tap,
    and no other plane is."""
    case = depthwise("", 2, 8, (14, 22), (13, 13), padding=(2, 3))
    data = floats(case, torch.bfloat16)
    clean = runner.run(direction, case, layout, "bf16", data.operands(direction))
    for operand in (0, 1):
        first, second = data.operands(direction)
        operands = first.clone(), second.clone()
        if direction != "backward_weight" and operand == 1:
            operands[operand][:2, 0, -1, -1] = value  # filters of the first two channels
        else:
            operands[operand][0, :2, -1, -1] = value
        reached = ~convolve(direction, case, *operands).isfinite()
        result = runner.run(direction, case, layout, "bf16", operands)
        assert torch.equal(~result.isfinite(), reached)
        assert reached.any()
        if direction == "backward_weight":
            assert torch.equal(result[2:], clean[2:])
        else:
            assert torch.equal(result[:, 2:], clean[:, 2:])
            assert operand == 1 or torch.equal(result[1], clean[1])


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@directions
@layouts
@pytest.mark.parametrize("after", [True, False])
def test_nothing_outside_the_tensors_is_touched(
    runner: DepthwiseRunner, direction: str, layout: Layout, after: bool
) -> None:
    place = partial(guarded, after=after, module=runner.module)
    check(runner, direction, depthwise("", 1, 9, (5, 7), (13, 13), padding=(6, 6)), layout, "bf16", None, place=place)


def test_selection_says_who_takes_bands(runner: DepthwiseRunner) -> None:
    """16-bit types, one filter a channel, strides and dilations of 1, 13 x 13 taps or as many; the others stay."""
    yes = depthwise("", 2, 8, (20, 20), (13, 13))
    no = {
        "fp32": yes,
        "bf16": depthwise("", 2, 8, (20, 20), (11, 11)),
        "fp16": depthwise("", 2, 8, (20, 20), (13, 13), (2, 1)),
    }
    for direction in DIRECTIONS:
        for layout in Layout:
            assert runner.plan(direction, yes, layout, "bf16").band
            assert not any(runner.plan(direction, case, layout, element).band for element, case in no.items())
    plan = runner.plan("forward", yes, NHWC, "bf16")
    plan.tiles = 3
    with pytest.raises(ValueError, match="2, 4 or 7 tiles"):
        check(runner, "forward", yes, NHWC, "bf16", plan)
    plan.tiles = 2
    with pytest.raises(ValueError, match="bands are of 16-bit types"):
        check(runner, "forward", no["fp16"], NHWC, "fp16", plan)
