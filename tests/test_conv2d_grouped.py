"""conv2d's kernel for groups of few channels: exact on small integers for every width of group and tile, the same bits
whatever the order of threads, nothing of one group in another's, and selected for every such layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from conftest import DEVICE, HAS_GPU
from conv2d_helpers import ELEMENTS, Data, Machine, convolve, floats, integers
from test_conv2d_select import GPUS, explain, workload_cases
from torch import Tensor

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import Conv2dCase
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import assert_within, rounding_bound

NHWC = Layout.NHWC
DIRECTIONS = ("forward", "backward_input")
TILES = [(256, 64), (128, 64), (64, 64), (128, 32), (64, 32), (64, 16)]


def grouped(name: str, n: int, c: int, k: int, groups: int, h: int, w: int, r: int, s: int, **rest: Any) -> Conv2dCase:
    """A case by its channels and filters of one group."""
    return Conv2dCase(name, n, c * groups, h, w, k * groups, r, s, groups=groups, **rest)


AROUND = {"padding": (1, 1, 1, 1)}
# Each width of a group by itself, with another width made of it, and a last bundle that is not full.
WIDTHS = [
    grouped(f"{c} to {k}", 2, c, k, groups, 7, 9, 3, 3, padding=(1, 1, 1, 0))
    for c, k, groups in [(4, 4, 10), (8, 8, 5), (16, 16, 3), (2, 2, 20), (4, 8, 6), (8, 4, 6), (16, 8, 3), (2, 16, 4)]
]
# And each way in which windows go over an image.
SWEEPS = [
    grouped("stride 2", 2, 4, 4, 8, 9, 10, 3, 3, stride=(2, 2), padding=(1, 1, 1, 0)),
    grouped("5x3 dilated", 1, 8, 8, 4, 13, 10, 5, 3, stride=(1, 3), padding=(3, 1, 0, 2), dilation=(2, 1)),
    grouped("stride and dilation", 2, 2, 4, 8, 13, 10, 3, 2, stride=(3, 2), padding=(0, 1, 0, 2), dilation=(2, 2)),
    grouped("1x1 stride 2 leaves phases empty", 2, 16, 16, 2, 5, 6, 1, 1, stride=(2, 2)),
    grouped("5x5", 1, 4, 4, 4, 6, 17, 5, 5, padding=(2, 2, 2, 2)),
    grouped("padding above the kernel", 1, 8, 16, 2, 3, 2, 2, 2, padding=(3, 2, 3, 4)),
]
CASES = [*WIDTHS, *SWEEPS]
cases = pytest.mark.parametrize("case", CASES, ids=str)
directions = pytest.mark.parametrize("direction", DIRECTIONS)
sums_of_each = pytest.mark.parametrize("case", [WIDTHS[0], WIDTHS[1], WIDTHS[3], SWEEPS[2]], ids=str)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(native.load("cuda" if HAS_GPU else "interpreter").module, DEVICE)


def plan(machine: Machine, tile: tuple[int, int] = (64, 64), blocks: int = 0) -> Any:
    made = machine.module.Conv2dPlan()
    made.engine = machine.module.Conv2dEngine.grouped
    made.tile, made.blocks = TILES.index(tile), blocks
    return made


def check(machine: Machine, direction: str, case: Conv2dCase, made: Any, element: str = "bf16") -> None:
    data = integers(case)
    result = machine.run(direction, case, NHWC, element, data.operands(direction), made)
    assert torch.equal(result, data.expected(direction, case).to(result.dtype))


@cases
@directions
def test_every_case(machine: Machine, direction: str, case: Conv2dCase) -> None:
    """A single block for each bundle goes over all patches with the filters it read once."""
    check(machine, direction, case, plan(machine, (64, 32), blocks=1), "bf16")
    check(machine, direction, case, plan(machine, (128, 32)), "fp16")


@pytest.mark.parametrize("tile", TILES)
@sums_of_each
def test_every_tile(machine: Machine, tile: tuple[int, int], case: Conv2dCase) -> None:
    check(machine, "forward", case, plan(machine, tile, 2))


@pytest.mark.skipif(HAS_GPU, reason="the order of threads is the interpreter's")
@pytest.mark.parametrize(("order", "delivery"), [("reversed", "late"), ("random", "random"), ("random", "late")])
@directions
@sums_of_each
def test_every_schedule(machine: Machine, case: Conv2dCase, direction: str, order: str, delivery: str) -> None:
    """A missing barrier or wait shows as poison or as wrong numbers in one of these orders."""
    case = dataclasses.replace(case, n=1)
    before = machine.module.schedule()
    machine.module.set_schedule(order=order, seed=3, delivery=delivery)
    try:
        check(machine, direction, case, plan(machine, (64, 32), 1))
    finally:
        machine.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@pytest.mark.skipif(HAS_GPU, reason="the interpreter counts bank conflicts")
def test_ldmatrix_meets_no_bank_twice(machine: Machine) -> None:
    machine.module.reset_statistics()
    for case in WIDTHS[1:3]:
        check(machine, "forward", case, plan(machine))
    trips = machine.module.statistics()
    assert trips["ldmatrix trips"] == trips["ldmatrix trips needed"] > 0


@directions
@sums_of_each
def test_an_infinity_stays_in_its_group(machine: Machine, direction: str, case: Conv2dCase) -> None:
    data = integers(case)
    first, second = (t.clone() for t in data.operands(direction))
    summed, made = (case.c, case.k) if direction == "forward" else (case.k, case.c)
    first[:, summed // case.groups :] = float("inf")
    second[case.k // case.groups :] = float("nan")
    result = machine.run(direction, case, NHWC, "bf16", (first, second), plan(machine))
    group = (slice(None), slice(0, made // case.groups))
    assert torch.equal(result[group], data.expected(direction, case).to(result.dtype)[group])


@directions
@sums_of_each
def test_an_infinity_stays_in_its_windows(machine: Machine, direction: str, case: Conv2dCase) -> None:
    """What fills the last step of a reduction up is zero, whatever lies behind the window."""
    data = integers(case)
    first, second = (t.clone() for t in data.operands(direction))
    first[:, :, 2, 2] = float("inf")
    result = machine.run(direction, case, NHWC, "bf16", (first, second), plan(machine))
    touched = convolve(direction, case, first.isinf().double(), torch.ones_like(second)) > 0
    assert touched.any() and not touched.all()
    assert torch.equal(result[~touched], data.expected(direction, case).to(result.dtype)[~touched])


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("case", [WIDTHS[0], WIDTHS[2], *SWEEPS[1:4]], ids=str)
def test_nothing_outside_the_tensors_is_touched(machine: Machine, case: Conv2dCase, after: bool) -> None:
    data = integers(case)
    for direction in DIRECTIONS:
        place = partial(guarded, after=after, module=machine.module)
        chosen = plan(machine)
        result = machine.run(direction, case, NHWC, "bf16", data.operands(direction), chosen, place=place)
        assert torch.equal(result, data.expected(direction, case).to(result.dtype))


@directions
@sums_of_each
def test_bits_do_not_depend_on_the_tile_nor_the_batch(machine: Machine, direction: str, case: Conv2dCase) -> None:
    many = dataclasses.replace(case, n=5)
    first, second = floats(many, torch.float16).operands(direction)
    together = machine.run(direction, many, NHWC, "fp16", (first, second))
    for tile in TILES[2:]:
        assert torch.equal(machine.run(direction, many, NHWC, "fp16", (first, second), plan(machine, tile)), together)
    alone = dataclasses.replace(case, n=1)
    assert torch.equal(machine.run(direction, alone, NHWC, "fp16", (first[3:4], second))[0], together[3])


@pytest.mark.parametrize("element", ["fp16", "bf16"])
@directions
@pytest.mark.parametrize("case", [WIDTHS[0], WIDTHS[2], SWEEPS[1]], ids=str)
def test_rounding(machine: Machine, direction: str, element: str, case: Conv2dCase) -> None:
    """At most twice the error of PyTorch's own operator in the same type, plus what the reduction's length allows."""
    torch_dtype = ELEMENTS[element][0]
    data: Data = floats(case, torch_dtype)
    operands = data.operands(direction)
    theirs = convolve(direction, case, *(t.to(torch_dtype) for t in operands))
    magnitude = convolve(direction, case, *(t.abs() for t in operands))
    reference = data.expected(direction, case)
    summed = {"forward": case.c, "backward_input": case.k}[direction]
    bound = rounding_bound(
        reference, theirs, summed // case.groups * case.r * case.s, magnitude, torch_dtype, tf32=False
    )
    assert_within(machine.run(direction, case, NHWC, element, operands, plan(machine)), reference, bound, direction)


def test_unaligned_tensors_are_served_by_another_engine(machine: Machine) -> None:
    case = WIDTHS[1]
    data = integers(case)

    def shifted(flat: Tensor) -> Tensor:
        memory = flat.new_empty(flat.numel() + 1)
        return memory[1:].copy_(flat)

    for direction in DIRECTIONS:
        result = machine.run(direction, case, NHWC, "fp16", data.operands(direction), place=shifted)
        assert torch.equal(result, data.expected(direction, case).to(result.dtype))
        with pytest.raises(ValueError, match="multiple of 16 bytes"):
            machine.run(direction, case, NHWC, "fp16", data.operands(direction), plan(machine), place=shifted)


@pytest.mark.parametrize(
    ("case", "layout", "element", "reason"),
    [
        (grouped("", 1, 8, 8, 1, 5, 5, 3, 3), NHWC, "bf16", "there is one group"),
        (
            grouped("", 1, 24, 8, 4, 5, 5, 3, 3),
            NHWC,
            "bf16",
            "groups of 24 input and 8 output channels are wide enough",
        ),
        (grouped("", 1, 8, 8, 4, 5, 5, 3, 3), NHWC, "tf32", "it multiplies float16 and bfloat16"),
        (grouped("", 1, 8, 8, 4, 5, 5, 3, 3), Layout.NCHW, "bf16", "only channels_last has them"),
        (grouped("", 1, 4, 4, 3, 5, 5, 3, 3), NHWC, "bf16", "12 and 12 channels are not multiples of 16 bytes"),
        (grouped("", 1, 12, 4, 4, 5, 5, 3, 3), NHWC, "bf16", "12 channels are not 2, 4 or whole chunks"),
        (grouped("", 1, 4, 3, 8, 5, 5, 3, 3), NHWC, "bf16", "an odd number of channels, 3"),
        (grouped("", 1, 16, 16, 2, 300, 300, 2, 2, dilation=(99, 99)), NHWC, "bf16", "do not fit shared memory"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_plan_that_cannot_serve_is_refused_with_the_reason(
    machine: Machine, case: Conv2dCase, layout: Layout, element: str, reason: str
) -> None:
    data = integers(case)
    with pytest.raises(ValueError, match=reason):
        machine.run("forward", case, layout, element, data.operands("forward"), plan(machine))
    found = explain(machine, "forward", case, layout, element, "a100")
    why = {found.why_not_grouped} if found.why_not_grouped else {c.why_not for c in found.grouped}
    assert found.chosen_grouped < 0 and any(reason in each for each in why)


RESNEXT = [case for case in workload_cases("resnext50_32x4d") if case.groups == 32]


@directions
def test_every_narrow_layer_is_served(machine: Machine, direction: str) -> None:
    """On every GPU, whatever the batch, as engines add in steps of different length; and for less by the model."""
    narrow = [case for case in RESNEXT if case.c // 32 <= 16]
    assert {case.c // 32 for case in narrow} == {4, 8, 16} and len(narrow) < len(RESNEXT)
    for case in RESNEXT:
        for gpu in GPUS:
            for batch in (1, 32, 256):
                sized = dataclasses.replace(case, n=batch)
                found = explain(machine, direction, sized, NHWC, "bf16", gpu)
                assert (found.chosen_grouped >= 0) == (case in narrow)
                if case in narrow and batch > 1:
                    other = found.wgmma or [part.candidates[part.chosen] for part in found.parts]
                    least = (
                        min(c.cost.seconds for c in found.wgmma if c.why_not is None)
                        if found.wgmma
                        else sum(c.cost.seconds for c in other)
                    )
                    assert found.grouped[found.chosen_grouped].cost.seconds < least


def test_the_model_counts_reads_of_shared_memory(machine: Machine) -> None:
    """By hand: resnext50's 3x3 of 128 channels in 32 groups at 56, batch 32, in patches of 64 pixels on 132 SMs."""
    case = next(case for case in RESNEXT if case.c == 128)
    found = explain(machine, "forward", case, NHWC, "bf16", "h200")
    cost = {c.plan.tile_shape: c.cost for c in found.grouped}[64, 64]
    patches = 32 * 7 * 7  # of 8 x 8 pixels
    assert cost.tiles == 2 * patches
    # A unit of 2 groups takes 3 steps of 4 taps; in each a warp reads 8 chunks a lane of 4 x 16 pixels, one of the
    # filters, and the table, at 4 clocks a chunk.
    steps = 8 * 3
    turns = math.ceil(2 * patches / 132)
    assert cost.arithmetic == pytest.approx(turns * steps * (4 * 9 + 1) / 1.83e9)
    assert cost.operands == pytest.approx(turns * 10 * 10 * 128 / (5.5e12 / 132))
    assert cost.useful == pytest.approx(36 / 48 / 2)
    assert cost.memory == pytest.approx(2 * (2 * 32 * 56 * 56 * 128 + 128 * 4 * 9) / (0.9 * 4.8e12))


@pytest.fixture
def hopper(machine: Machine) -> Iterator[Machine]:
    """The interpreter standing for an H200."""
    m = machine.module
    m.stand_for(m.machine_named("h200"))
    yield machine
    m.stand_for(m.machine_named("a100"))


@pytest.mark.skipif(HAS_GPU, reason="the interpreter stands for another GPU")
def test_it_goes_before_hoppers_kernel(hopper: Machine) -> None:
    (chosen,) = hopper.plans("forward", WIDTHS[2], NHWC, "bf16")
    assert chosen.engine.name == "grouped" and repr(chosen).startswith("grouped ")
    wider = grouped("", 1, 32, 32, 4, 5, 5, 3, 3)
    assert hopper.plans("forward", wider, NHWC, "bf16")[0].engine.name == "wgmma"
