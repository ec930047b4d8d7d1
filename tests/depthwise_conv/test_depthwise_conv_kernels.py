"""depthwise_conv2d's CUDA kernels, configuration by configuration: every access, chunk, block and type must give the
exact result on small integers, the same bits whatever the order of threads, and touch no byte beside its tensors."""

from __future__ import annotations

import dataclasses
import itertools
import math
import mmap
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import DEPTHWISE_CONV2D, depthwise
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import DIRECTIONS, convolve, floats, from_memory, in_memory, integers, result_shape
from helpers.depthwise_conv import TYPES, DepthwiseRunner, aligned, check
from helpers.device import DEVICE, HAS_GPU, MODULE

NCHW, NHWC = Layout.NCHW, Layout.NHWC
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
elements = pytest.mark.parametrize("element", list(TYPES))
directions = pytest.mark.parametrize("direction", DIRECTIONS)


@pytest.fixture(scope="module")
def runner() -> DepthwiseRunner:
    return DepthwiseRunner(native.load(MODULE).module, DEVICE)


# Every kernel compiled: a stride for each walk, a filter for each chunk.
WALKS = [
    *[(stride, chunk) for stride in (1, 2) for chunk in (0, 3, 5)],
    (1, 7),
    (3, 0),
]


@directions
@elements
@pytest.mark.parametrize("access", ["vector", "slab", "element"])
@pytest.mark.parametrize(("stride", "chunk"), WALKS)
def test_every_kernel(
    runner: DepthwiseRunner, direction: str, element: str, access: str, stride: int, chunk: int
) -> None:
    layout = NCHW if access == "slab" else NHWC
    taps = chunk if access == "slab" and chunk > 3 else 7  # slabs have wide chunks for square filters alone
    case = depthwise("", 1, 8, (9, 8), (taps, taps), (stride, stride), (3, 2))
    plan = runner.plan(direction, case, layout, element, chunk=chunk)
    if access == "element":
        plan.vector, plan.lanes = 1, 2
    assert plan.slab == (access == "slab")
    widest = 0 if access == "element" else {"fp64": 3, "fp32": 5}.get(element, 7)
    if access == "slab" and direction == "backward_input" and stride == 2:
        widest = min(widest, 3)
    if chunk > widest:
        with pytest.raises(ValueError, match=r"a kernel for the type|5 x 5 and 7 x 7 filters alone"):
            check(runner, direction, case, layout, element, plan)
        return
    check(runner, direction, case, layout, element, plan)


# images or lanes, strips, lines, workers: boxes of whole planes, of rows, of parts of rows; all channels or some.
SLABS = [(1, 2, 13, 32), (1, 1, 13, 96), (5, 2, 13, 64), (15, 2, 13, 256), (2, 1, 13, 64), (4, 1, 5, 32), (5, 1, 6, 64)]


@pytest.mark.parametrize("slab", SLABS, ids=str)
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@layouts
@directions
def test_every_slab(
    runner: DepthwiseRunner, direction: str, layout: Layout, stride: int, multiplier: int, slab: tuple[int, ...]
) -> None:
    """Rows of 7 and 13 elements and pixels of 5 and 15 channels, so that pieces begin and end at any place of a
    vector."""
    groups, strips, lines, workers = slab
    case = depthwise("", 2, 5, (13, 13), (5, 3), (stride, stride), (2, 1), multiplier=multiplier)
    changes = {"strips": strips, "lines": lines, "workers": workers}
    if direction == "backward_weight":
        changes |= {"lanes": min(groups, 5), "tiles": 2, "workers": 3, "splits": 3}
    else:
        changes["images" if layout is NCHW else "lanes"] = groups
    plan = runner.plan(direction, case, layout, "bf16", **changes)
    assert plan.slab
    check(runner, direction, case, layout, "bf16", plan)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
@layouts
def test_bits_do_not_depend_on_the_plan(runner: DepthwiseRunner, direction: str, layout: Layout, stride: int) -> None:
    """Taps are added in one order, whatever the chunk and the block, through shared memory or not."""
    case = depthwise("", 2, 8, (12, 11), (7, 7), (stride, stride), (3, 3))
    data = floats(case, torch.float32)
    chosen, chunks = runner.plan(direction, case, layout, "fp32"), (0, 3, 5) if layout is NHWC else (0, 3)
    plans = [chosen, *(runner.plan(direction, case, layout, "fp32", chunk=chunk) for chunk in chunks)]
    narrow = 0 if layout is NCHW else 3  # single elements have no chunk
    plans.append(runner.plan(direction, case, layout, "fp32", slab=False, chunk=narrow, strips=1, lines=3, images=2))
    results = [runner.run(direction, case, layout, "fp32", data.operands(direction), plan) for plan in plans]
    assert all(torch.equal(result, results[0]) for result in results)


# lanes, strips, lines, images
BLOCKS = [(1, 1, 1, 1), (3, 2, 1, 2), (2, 1, 5, 1), (1, 3, 2, 4), (2, 2, 4, 3)]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("vector", [8, 1])
@layouts
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
def test_every_block(
    runner: DepthwiseRunner, direction: str, layout: Layout, vector: int, block: tuple[int, ...]
) -> None:
    """Extents that do not divide the result's, in every dimension of a block."""
    if layout is NCHW:
        vector, block = 1, (1, *block[1:])
    case = depthwise("", 3, 24, (11, 10), (3, 3), (1, 1), (1, 1))
    lanes, strips, lines, images = block
    changes = {"vector": vector, "lanes": lanes, "strips": strips, "lines": lines, "images": images, "slab": False}
    changes["chunk"] = 3 if vector > 1 else 0
    check(runner, direction, case, layout, "bf16", runner.plan(direction, case, layout, "bf16", **changes))


# lanes, tiles, workers, splits
SHARES = [(1, 1, 1, 1), (2, 3, 5, 1), (3, 2, 7, 4), (1, 2, 64, 50)]


@pytest.mark.parametrize("share", SHARES, ids=str)
@pytest.mark.parametrize("vector", [4, 1])
@layouts
def test_every_share_of_the_weights_sum(
    runner: DepthwiseRunner, layout: Layout, vector: int, share: tuple[int, ...]
) -> None:
    """Also more splits than there are positions: the surplus adds zeros."""
    if layout is NCHW:
        vector = 1
    case = depthwise("", 2, 12, (7, 9), (4, 5), (1, 1), (1, 2))
    lanes, tiles, workers, splits = share
    changes = {"vector": vector, "lanes": lanes, "tiles": tiles, "workers": workers, "splits": splits, "slab": False}
    changes["chunk"] = 3 if vector > 1 else 0
    plan = runner.plan("backward_weight", case, layout, "fp32", **changes)
    check(runner, "backward_weight", case, layout, "fp32", plan)


def test_filters_beyond_shared_memory(runner: DepthwiseRunner) -> None:
    """Taken in batches of lines, and of taps where a line alone is too long."""
    tall, wide = depthwise("", 1, 8, (40, 3), (97, 9), padding=(48, 4)), depthwise("", 1, 8, (1, 900), (1, 890))
    for case in (tall, wide):
        check(runner, "forward", case, NHWC, "fp16", runner.plan("forward", case, NHWC, "fp16"))


@directions
@layouts
@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_every_schedule(
    runner: DepthwiseRunner, schedules: list[dict[str, Any]], direction: str, layout: Layout, element: str
) -> None:
    """A missing barrier shows as poison or as wrong numbers in one of these orders, and the bits never change."""
    case = depthwise("", 1, 16, (9, 11), (5, 3), (1, 1), (2, 1))
    data = floats(case, TYPES[element][0])
    plan = runner.plan(direction, case, layout, element)
    if direction == "backward_weight":
        plan.splits = 3
    results = []
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        check(runner, direction, case, layout, element, plan)
        results.append(runner.run(direction, case, layout, element, data.operands(direction), plan))
    assert all(torch.equal(results[0], result) for result in results)


@layouts
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_a_sample_does_not_depend_on_its_batch(
    runner: DepthwiseRunner, direction: str, layout: Layout, element: str
) -> None:
    case = depthwise("", 17, 8, (8, 9), (3, 3), (2, 1), (1, 1))
    data = floats(case, TYPES[element][0])
    first, second = data.operands(direction)
    together = runner.run(direction, case, layout, element, (first, second))
    for sample in (0, 16):
        alone = dataclasses.replace(case, n=1)
        single = runner.run(direction, alone, layout, element, (first[sample : sample + 1], second))
        assert torch.equal(single[0], together[sample])


def test_the_plan_does_not_depend_on_the_batch_where_bits_do(runner: DepthwiseRunner) -> None:
    """The order of a result's sum follows from the access and the chunk."""
    for case, layout, element in itertools.product(DEPTHWISE_CONV2D, Layout, TYPES):
        for direction in ("forward", "backward_input"):
            plans = [runner.plan(direction, dataclasses.replace(case, n=n), layout, element) for n in (1, 3, 64, 1000)]
            assert len({(plan.vector, plan.chunk) for plan in plans}) == 1


ROUNDING = [
    depthwise("", 2, 8, (12, 11), (3, 3), padding=(1, 1)),
    depthwise("", 1, 3, (13, 12), (9, 8), (2, 1), (4, 4), multiplier=2),
    depthwise("", 4, 8, (7, 7), (7, 7), padding=(3, 3)),
]


@elements
@layouts
@directions
@pytest.mark.parametrize("case", ROUNDING, ids=range(len(ROUNDING)))
def test_rounding(runner: DepthwiseRunner, direction: str, layout: Layout, element: str, case: ConvCase) -> None:
    """At most twice the error of PyTorch's own operator in the same type, plus what the reduction's length allows:
    16-bit types are summed in fp32."""
    torch_dtype, _ = TYPES[element]
    data = floats(case, torch_dtype)
    operands = data.operands(direction)
    reference = data.expected(direction, case)
    theirs = convolve(direction, case, *(t.to(torch_dtype) for t in operands))
    magnitude = convolve(direction, case, *(t.abs() for t in operands))
    g = case.geometry
    reduction = {
        "forward": g.r * g.s,
        "backward_input": g.k // g.c * g.r * g.s,
        "backward_weight": g.n * g.p * g.q,
    }[direction]
    result = runner.run(direction, case, layout, element, operands)
    bound = rounding_bound(reference, theirs, reduction, magnitude, torch_dtype)
    assert_within(result, reference, bound, f"{direction} {element}")


@pytest.mark.parametrize(("element", "ulp"), [("fp16", 2.0**-10), ("bf16", 2.0**-7)])
@layouts
def test_bias_is_added_before_the_only_rounding(
    runner: DepthwiseRunner, element: str, ulp: float, layout: Layout
) -> None:
    """1 + ulp/2 is a tie that would round to 1; a bias of ulp/8 decides it only if it is added in fp32."""
    case = depthwise("", 1, 1, (1, 2), (1, 2))
    x, w = torch.ones(case.input_shape), torch.tensor([1.0, ulp / 2]).view(case.weight_shape)
    y = runner.run("forward", case, layout, element, (x, w), bias=torch.tensor([ulp / 8]))
    assert y.item() == 1 + ulp


@directions
@layouts
def test_infinity_reaches_what_it_should(runner: DepthwiseRunner, direction: str, layout: Layout) -> None:
    """A result is finite where no tap meets the infinity: nothing is multiplied by a zero that stands for nothing."""
    case = depthwise("", 1, 8, (9, 10), (4, 3))
    data = floats(case, torch.float32)
    first, second = (t.clone() for t in data.operands(direction))
    (second if direction == "backward_weight" else first)[0, :, -1, -1] = math.inf
    expected = convolve(direction, case, first, second)
    result = runner.run(direction, case, layout, "fp32", (first, second))
    assert torch.equal(result.isfinite(), expected.isfinite())
    assert 0 < expected.isfinite().sum() < expected.numel()


GUARDED = [case for case in DEPTHWISE_CONV2D if case.c * case.h * case.w < 600][::3]


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("case", GUARDED, ids=str)
@layouts
def test_nothing_outside_the_tensors_is_touched(runner: DepthwiseRunner, case: ConvCase, layout: Layout) -> None:
    for after, direction in itertools.product((True, False), DIRECTIONS):
        check(runner, direction, case, layout, "bf16", None, place=partial(guarded, after=after, module=runner.module))


@elements
@layouts
@directions
def test_unaligned_pointers(runner: DepthwiseRunner, direction: str, layout: Layout, element: str) -> None:
    """A view that begins one element into its memory is read in pieces of 16 bytes that begin elsewhere in it."""

    def shifted(flat: Tensor) -> Tensor:
        return aligned(torch.cat([flat[:1], flat]))[1:]

    check(runner, direction, depthwise("", 2, 16, (6, 7), (3, 3), padding=(1, 1)), layout, element, None, place=shifted)


@pytest.mark.parametrize(("layout", "channels"), [(NCHW, 1), (NHWC, 1), (NHWC, 8)])
@pytest.mark.parametrize("direction", ["forward", "backward_weight"])
def test_offsets_beyond_32_bits(runner: DepthwiseRunner, direction: str, layout: Layout, channels: int) -> None:
    """Four rows of three pixels far from each other among 2.9e9 elements: almost no memory is touched, and a row's
    offset alone passes 2^31. By slabs and by vectors."""
    step = 360_000_000 // channels
    case = depthwise("", 1, channels, (4, 2 * step + 1), (2, 1), (1, step))
    count = math.prod(case.input_shape)
    assert 3 * count // 4 > 2**31
    plan = runner.plan(direction, case, layout, "fp16")
    assert plan.slab == (channels == 1)
    if HAS_GPU:
        x = torch.zeros(count, dtype=torch.float16, device=DEVICE)
    else:  # zeros that cost no memory until they are written
        x = torch.frombuffer(mmap.mmap(-1, count * 2), dtype=torch.float16)
    small = depthwise("", 1, channels, (4, 3), (2, 1))
    data = integers(small)
    seen = in_memory(data.x, NHWC).view(4, 3, channels).to(x)
    x.view(4, 2 * step + 1, channels)[:, ::step] = seen
    second = data.w if direction == "forward" else data.dy
    second = aligned(in_memory(second.half(), layout).to(DEVICE))
    shape = result_shape(direction, small)
    result = aligned(torch.full((math.prod(shape),), math.nan, dtype=torch.float16, device=DEVICE))
    rest = (2, int(layout), runner.geometry(case), 0, plan)
    if direction == "forward":
        runner.module.depthwise_conv_forward(x.data_ptr(), second.data_ptr(), 0, result.data_ptr(), *rest)
    else:
        size = runner.module.depthwise_conv_backward_weight_workspace(2, int(layout), runner.geometry(case), plan)
        workspace = aligned(torch.zeros(size, dtype=torch.uint8, device=DEVICE))
        runner.module.depthwise_conv_backward_weight(
            second.data_ptr(), x.data_ptr(), result.data_ptr(), workspace.data_ptr(), *rest
        )
    assert torch.equal(from_memory(result.cpu(), shape, layout), data.expected(direction, small).half())


def test_a_plan_that_cannot_serve_is_refused_with_the_reason(runner: DepthwiseRunner) -> None:
    case = depthwise("", 1, 8, (6, 6), (3, 3), dilation=(1, 2))
    data = integers(case)

    def run(message: str, **changes: int) -> None:
        with pytest.raises(ValueError, match=message):
            plan = runner.plan("forward", case, NHWC, "fp32", **changes)
            runner.run("forward", case, NHWC, "fp32", data.operands("forward"), plan)

    run("vector is 1 or 16 bytes", vector=8)
    run("dilation 1", chunk=3)
    run("at least 1", lanes=0)
    run("at most 256 threads", lines=300)

    def run_planes(message: str, **changes: int) -> None:
        with pytest.raises(ValueError, match=message):
            plan = runner.plan("forward", case, NCHW, "fp32", **changes)
            runner.run("forward", case, NCHW, "fp32", data.operands("forward"), plan)

    run_planes("16 bytes of channels", vector=4)
    run_planes("lanes must be 1", lanes=2, slab=False, chunk=0)
    run_planes("96 KB at most", images=4000)
    run_planes("at most 256 threads", workers=512)
