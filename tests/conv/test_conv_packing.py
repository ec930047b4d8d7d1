"""Packed copies of conv2d's 16-bit tensors: exact in every direction, slice by slice, and chosen by the layer alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.guarded import guarded
from helpers.conv import DIRECTIONS, ELEMENTS, ConvRunner, convolve, floats, integers, result_shape
from helpers.conv_epilogue import numbers, reference, run
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.native import why_no_wgmma

NCHW, NHWC = Layout.NCHW, Layout.NHWC
LIMIT = 256 * 2**20
LOADERS = {
    "forward": ("along_depth", "along_depth"),
    "backward_input": ("along_depth", "along_side"),
    "backward_weight": ("along_side", "along_side"),
}
CASES = [
    ConvCase("odd channels and filters", 2, 35, 4, 5, 21, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("stem", 1, 3, 9, 11, 40, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3)),
    ConvCase("whole channels", 1, 64, 5, 5, 24, 2, 2, padding=(1, 1, 1, 1)),
    ConvCase("groups of 12", 1, 24, 5, 6, 40, 3, 2, padding=(1, 1, 1, 1), groups=2),
    ConvCase("dilated rows, uneven padding", 1, 3, 6, 7, 8, 3, 3, padding=(1, 1, 2, 0), dilation=(1, 2)),
    ConvCase("strided gradient", 1, 35, 5, 6, 19, 3, 3, stride=(2, 2), padding=(1, 1, 1, 1)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
directions = pytest.mark.parametrize("direction", DIRECTIONS)


@pytest.fixture(params=["mma", "wgmma"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "wgmma":
        request.getfixturevalue("on_a_hopper")
    return str(request.param)


@pytest.fixture(scope="module")
def runner() -> ConvRunner:
    return ConvRunner(native.load(MODULE).module, DEVICE)


def plan_of(runner: ConvRunner, direction: str, packing: str, engine: str = "mma", splits: int = 1) -> Any:
    plan = runner.plan("bf16", 1, *LOADERS[direction], splits, packing)
    if engine == "wgmma":
        if why := why_no_wgmma():
            pytest.skip(why)
        plan.engine, plan.tile = runner.module.ConvEngine.wgmma, 4
    return plan


@cases
@layouts
@directions
@pytest.mark.parametrize("packing", ["channels", "rows"])
def test_exact(runner: ConvRunner, case: ConvCase, layout: Layout, direction: str, engine: str, packing: str) -> None:
    """In memory that ends at an unmapped page, around a workspace full of NaN."""
    if packing == "rows" and (direction == "backward_input" or case.c != 3):
        return  # refused (test_what_cannot_be_packed_is_refused), or nothing new
    if case.c == 64 and layout is NHWC:
        return  # nothing to copy
    if engine == "wgmma" and case.groups > 1 and direction == "backward_input":
        return  # TMA would reach from a group's 24 filters into the next group's
    element = "fp16" if packing == "rows" else "bf16"
    data, splits = integers(case), 2 if direction == "backward_weight" else 1
    plan = plan_of(runner, direction, packing, engine, splits)
    result = runner.run(
        direction, case, layout, element, data.operands(direction), plan,
        bias=data.b if direction == "forward" else None,
        place=torch.clone if HAS_GPU else partial(guarded, module=runner.module),
    )  # fmt: skip
    expected = data.expected(direction, case) + (data.b.view(-1, 1, 1) if direction == "forward" else 0)
    assert torch.equal(result, expected.to(result.dtype))


# Awkward for a tile of 64 channels by 64 pixels: several, cut tiles; whole and odd numbers of pixels; few channels.
COPIES = [(2, 72, 8, 9), (1, 64, 5, 13), (1, 67, 1, 70), (3, 5, 4, 4), (2, 20, 7, 1), (1, 8, 1, 1)]


@pytest.mark.parametrize("shape", COPIES, ids=str)
@layouts
def test_packing_and_unpacking_alone(runner: ConvRunner, shape: tuple[int, ...], layout: Layout, engine: str) -> None:
    """A 1x1 filter with ones on its diagonal copies an image, so each element must come back to its place."""
    n, c, h, w = shape
    case = ConvCase("", n, c, h, w, c, 1, 1)
    x = torch.arange(math.prod(shape), dtype=torch.int32).remainder(2039).view(shape).double()  # exact in fp16
    identity = torch.eye(c, dtype=torch.float64).view(c, c, 1, 1)
    place = torch.clone if HAS_GPU else partial(guarded, after=engine == "mma", module=runner.module)
    plan = plan_of(runner, "forward", "channels", engine)
    if layout is NHWC and c % 8 == 0:
        assert runner.workspace_bytes("forward", runner.kind("fp16", layout), runner.geometry(case), plan) == 0
        return
    assert torch.equal(runner.run("forward", case, layout, "fp16", (x, identity), plan, place=place).double(), x)


@layouts
@directions
def test_slices(runner: ConvRunner, layout: Layout, engine: str, direction: str) -> None:
    """A batch packed image by image, or two and one, has the bits of a batch packed at once; so has a sample alone.
    backward_weight's slices are summed apart, so there only integers agree."""
    case = ConvCase("", 3, 20, 4, 5, 11, 3, 3, padding=(1, 1, 1, 1))
    apart = direction == "backward_weight"
    data = integers(case) if apart else floats(case, torch.bfloat16)
    first, second = data.operands(direction)
    plan = plan_of(runner, direction, "channels", engine, 2 if apart else 1)
    whole = runner.run(direction, case, layout, "bf16", (first, second), plan)
    plan.images = 1 if engine == "mma" else 2
    if apart and engine == "wgmma":
        with pytest.raises(ValueError, match="wgmma is Hopper's and serves a problem as a whole"):
            runner.run(direction, case, layout, "bf16", (first, second), plan)
        return
    assert torch.equal(runner.run(direction, case, layout, "bf16", (first, second), plan), whole)
    if apart:
        assert torch.equal(whole, data.expected(direction, case).to(whole.dtype))
    else:
        alone = dataclasses.replace(case, n=1)
        assert torch.equal(runner.run(direction, alone, layout, "bf16", (first[2:], second), plan)[0], whole[2])


# Few channels, and planes of a whole and an odd number of 16 bytes.
@pytest.mark.parametrize("size", [(5, 4, 6), (35, 2, 8), (35, 3, 5)], ids=str)
@layouts
def test_an_infinity_stays_in_its_channel(
    runner: ConvRunner, size: tuple[int, int, int], layout: Layout, engine: str
) -> None:
    """Padding is zero on both sides: an infinity meets no padded filter, a pixel's neighbour no padded channel."""
    case = ConvCase("", 1, *size, 3, 1, 3, padding=(0, 0, 1, 1))
    x, w = torch.ones(case.input_shape), torch.ones(case.weight_shape)
    x[0, 0, 0, 0] = math.inf
    w[1] = -1
    for packing in ("channels", "rows"):
        y = runner.run("forward", case, layout, "bf16", (x, w), plan_of(runner, "forward", packing, engine))
        assert torch.equal(y, convolve("forward", case, x, w).to(y.dtype)) and not y.isnan().any()


@pytest.mark.skipif(HAS_GPU, reason="the interpreter orders threads and delivers copies")
@layouts
@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_threads(runner: ConvRunner, layout: Layout, engine: str, seed: int) -> None:
    case = CASES[0]
    data, before = integers(case), runner.module.schedule()
    runner.module.set_schedule(order="random", seed=seed, delivery="late")
    plan = plan_of(runner, "forward", "channels", engine)
    result = runner.run("forward", case, layout, "bf16", data.operands("forward"), plan)
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])
    assert torch.equal(result, data.expected("forward", case).to(result.dtype))


@layouts
@pytest.mark.parametrize("filters", [21, 24])
def test_the_epilogue(runner: ConvRunner, layout: Layout, engine: str, filters: int) -> None:
    """Bias, scale and shift of odd filters are padded with them where the result is; the residual is packed too."""
    case = ConvCase("", 2, 12, 5, 6, 2 * filters, 3, 3, padding=(1, 1, 1, 1), groups=2)
    kernels = native.load(MODULE)
    given = numbers(case, torch.float16, DEVICE, layout)
    plan = plan_of(runner, "forward", "channels", engine)
    if engine == "wgmma":
        case = dataclasses.replace(case, c=32)  # whose groups fill TMA's runs
        given = numbers(case, torch.float16, DEVICE, layout)
    found = run(kernels, case, given, layout, "leaky_relu", plan=plan)
    assert torch.equal(found, reference(case, given, "leaky_relu").half().double())


def test_what_cannot_be_packed_is_refused(runner: ConvRunner) -> None:
    def refused(direction: str, case: ConvCase, element: str, packing: str, why: str) -> None:
        plan = runner.plan(element, 1, *LOADERS[direction], 1, packing)
        with pytest.raises(ValueError, match=why):
            runner.run(direction, case, NHWC, element, integers(case).operands(direction), plan)

    refused("forward", CASES[0], "tf32", "channels", "only 16-bit types are packed")
    refused("backward_input", CASES[0], "bf16", "rows", "rows of overlapping windows are read, not written")
    refused("forward", CASES[3], "bf16", "rows", "rows are packed of one group")
    plan, data = plan_of(runner, "forward", "channels"), integers(CASES[0])
    runner.workspace_bytes = lambda *arguments: 0  # type: ignore[method-assign]
    try:
        with pytest.raises(ValueError, match="tensors are packed here, and need a workspace"):
            runner.run("forward", CASES[0], NHWC, "bf16", data.operands("forward"), plan)
    finally:
        del runner.workspace_bytes


# --- the rule

LAYERS = [
    ConvCase("resnet50 stem", 32, 3, 224, 224, 64, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3)),
    ConvCase("35 channels", 32, 35, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("64 channels", 32, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("groups of 12", 32, 384, 28, 28, 384, 3, 3, padding=(1, 1, 1, 1), groups=32),
    ConvCase("large image", 32, 64, 512, 512, 64, 3, 3, padding=(1, 1, 1, 1)),
]


def explained(runner: ConvRunner, direction: str, case: ConvCase, layout: Layout, element: str, gpu: str) -> Any:
    m = runner.module
    which, kind = getattr(m.ConvDirection, direction), runner.kind(element, layout)
    return m.conv_explain(which, *kind, runner.geometry(case), m.gpu_named(gpu))


@pytest.mark.parametrize("case", LAYERS, ids=str)
@layouts
@pytest.mark.parametrize("gpu", ["a100", "h200"])
def test_the_batch_has_no_part_in_the_rule(runner: ConvRunner, case: ConvCase, layout: Layout, gpu: str) -> None:
    for direction in ("forward", "backward_input"):
        found = {explained(runner, direction, dataclasses.replace(case, n=n), layout, "bf16", gpu).packing.name
                 for n in (1, 5, 32, 700)}  # fmt: skip
        assert len(found) == 1
        plain = explained(runner, direction, case, layout, "fp32", gpu)
        assert plain.packing.name == "none" and plain.judged_none == 0


def test_what_is_packed(runner: ConvRunner) -> None:
    """The layers this is for, as the model of each GPU has it; and those that need no copy."""
    stem, odd, whole, grouped, _ = LAYERS

    def packing(case: ConvCase, layout: Layout, gpu: str, direction: str = "forward") -> str:
        return explained(runner, direction, case, layout, "bf16", gpu).packing.name

    for gpu in ("a100", "h200"):
        assert packing(stem, NHWC, gpu) == packing(stem, NCHW, gpu) == "rows"
        assert packing(odd, NHWC, gpu) == packing(odd, NCHW, gpu) == packing(grouped, NHWC, gpu) == "channels"
        assert packing(whole, NCHW, gpu) == packing(whole, NCHW, gpu, "backward_input") == "channels"
        assert packing(whole, NHWC, gpu) == "none"
    found = explained(runner, "forward", odd, NHWC, "bf16", "h200")
    assert found.wgmma and found.why_packed.startswith("A: ") and found.copy_launches == 1
    pixels = 32 * 56 * 56
    assert found.copy_bytes == 2 * (pixels * (35 + 40) + 64 * 9 * (35 + 40))
    assert found.copy_seconds == pytest.approx(found.copy_bytes / (0.9 * 4.8e12) + 3e-6)
    costs = {"none": found.judged_none, "channels": found.judged_channels}
    assert min(costs, key=costs.__getitem__) == "channels" and found.judged_rows == 0


@layouts
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
def test_the_rule_serves_unasked(runner: ConvRunner, layout: Layout, direction: str) -> None:
    """By the way every layer takes, which makes the workspace; a sample has the same bits alone."""
    channels = (131, 19) if direction == "forward" else (19, 131)
    case = ConvCase("", 3, channels[0], 6, 6, channels[1], 5, 5, padding=(2, 2, 2, 2))
    kernels = native.load(MODULE)
    if not HAS_GPU:
        assert runner.plans(direction, case, layout, "bf16")[0].packing.name == "channels"

    def run(case: ConvCase, first: Tensor, second: Tensor) -> Tensor:
        result = torch.full(result_shape(direction, case), math.nan, dtype=torch.bfloat16, device=DEVICE)
        result = result.contiguous(memory_format=layout.memory_format)
        operands = (
            t.to(DEVICE, torch.bfloat16).contiguous(memory_format=layout.memory_format) for t in (first, second)
        )
        bias = (None,) if direction == "forward" else ()
        getattr(kernels, f"conv_{direction}")(*operands, *bias, result, case.geometry, layout, False)
        return result.cpu()

    exact = integers(case)
    expected = exact.expected(direction, case)
    assert torch.equal(run(case, *exact.operands(direction)), expected.bfloat16())
    first, second = floats(case, torch.bfloat16).operands(direction)
    alone = run(dataclasses.replace(case, n=1), first[1:2], second)
    assert torch.equal(alone[0], run(case, first, second)[1])


@pytest.mark.parametrize("case", LAYERS, ids=str)
@layouts
@directions
def test_copies_stay_within_the_limit(runner: ConvRunner, case: ConvCase, layout: Layout, direction: str) -> None:
    """Whatever the batch; backward_weight has as much again for its partial sums."""
    for n in (1, 32, 256):
        geometry = runner.geometry(dataclasses.replace(case, n=n))
        size = runner.workspace_bytes(direction, runner.kind("bf16", layout), geometry, None)
        assert size <= LIMIT * (2 if direction == "backward_weight" else 1)


@pytest.fixture(params=["a100", "h200"])
def standing(runner: ConvRunner, request: pytest.FixtureRequest) -> Iterator[ConvRunner]:
    if HAS_GPU:
        pytest.skip("the interpreter stands for GPUs")
    runner.module.stand_for(runner.module.gpu_named(request.param))
    yield runner
    runner.module.stand_for(runner.module.gpu_named("a100"))


@layouts
@directions
def test_unaligned_tensors_have_the_bits_of_aligned_ones(standing: ConvRunner, layout: Layout, direction: str) -> None:
    """Operands that begin one element into their memory are copied: the same kernel then makes the same sums."""
    case = ConvCase("", 2, 16, 6, 7, 24, 3, 3, (1, 1), (1, 1, 1, 1))
    data = floats(case, ELEMENTS["bf16"][0])
    memories: list[Tensor] = []

    def operands_shifted(flat: Tensor) -> Tensor:
        if flat.isnan().any() or flat.dtype is torch.uint8:
            return flat.clone()
        memories.append(flat.new_empty(flat.numel() + 1))
        return memories[-1][1:].copy_(flat)

    plan = None if layout is NHWC else plan_of(standing, direction, "channels")
    aligned = standing.run(direction, case, layout, "bf16", data.operands(direction), plan)
    unaligned = standing.run(direction, case, layout, "bf16", data.operands(direction), plan, place=operands_shifted)
    assert len(memories) == 2 and torch.equal(aligned, unaligned)
