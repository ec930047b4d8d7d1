"""conv2d's kernels for groups of few channels: exact on small integers for every width of group and tile, the same bits
whatever the order of threads, nothing of one group in another's, and selected for every such layer."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import DIRECTIONS, ELEMENTS, ConvRunner, Data, convolve, floats, integers
from helpers.conv_grouped import KINDS, SWEEPS, TILES, WIDTHS, grouped, plan
from helpers.conv_select import GPUS, WORKSPACE_LIMIT, explain, workload_cases
from helpers.device import DEVICE, HAS_GPU, MODULE

NHWC = Layout.NHWC


AROUND = {"padding": (1, 1, 1, 1)}
CASES = [*WIDTHS, *SWEEPS]
cases = pytest.mark.parametrize("case", CASES, ids=str)
kinds = pytest.mark.parametrize("case", KINDS, ids=str)
directions = pytest.mark.parametrize("direction", DIRECTIONS)
batch_invariant = pytest.mark.parametrize("direction", DIRECTIONS[:2])


@pytest.fixture(scope="module")
def runner() -> ConvRunner:
    return ConvRunner(native.load(MODULE).module, DEVICE)


def check(
    runner: ConvRunner, direction: str, case: ConvCase, tile: tuple[int, int], blocks: int = 0, element: str = "bf16"
) -> None:
    data = integers(case)
    made = plan(runner, tile, blocks, direction)
    result = runner.run(direction, case, NHWC, element, data.operands(direction), made)
    assert torch.equal(result, data.expected(direction, case).to(result.dtype))


@cases
@directions
def test_every_case(runner: ConvRunner, direction: str, case: ConvCase) -> None:
    """A single block for each bundle goes over all patches, or several share them and their sums are added."""
    check(runner, direction, case, (64, 16), 1)
    check(runner, direction, case, (128, 32), 3, "fp16")


@pytest.mark.parametrize("case", [(6, 10, 8), (10, 2, 4), (14, 16, 4)], ids=str)
def test_the_filters_gradient_of_any_even_width(runner: ConvRunner, case: tuple[int, int, int]) -> None:
    check(runner, "backward_weight", grouped("", 1, *case, 5, 6, 3, 2), (64, 64))


@pytest.mark.parametrize("tile", TILES)
@directions
def test_every_tile(runner: ConvRunner, direction: str, tile: tuple[int, int]) -> None:
    check(runner, direction, KINDS[0], tile, 2)


@pytest.mark.skipif(HAS_GPU, reason="the order of threads is the interpreter's")
@pytest.mark.parametrize(("order", "delivery"), [("reversed", "late"), ("random", "random")])
@directions
@kinds
def test_every_schedule(runner: ConvRunner, case: ConvCase, direction: str, order: str, delivery: str) -> None:
    """A missing barrier or wait shows as poison or as wrong numbers in one of these orders."""
    case = dataclasses.replace(case, n=1)
    before = runner.module.schedule()
    runner.module.set_schedule(order=order, seed=3, delivery=delivery)
    try:
        check(runner, direction, case, (64, 32), 1)
    finally:
        runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@pytest.mark.counted
def test_ldmatrix_meets_no_bank_twice(runner: ConvRunner) -> None:
    """Where a run of 8 pixels is whole; here it goes on in the next row."""
    runner.module.reset_statistics()
    for width, direction in itertools.product((8, 16), DIRECTIONS):
        check(runner, direction, grouped("", 1, width, width, 2, 6, 12, 3, 3, **AROUND), (128, 64))
    trips = runner.module.statistics()
    assert trips["ldmatrix trips"] == trips["ldmatrix trips needed"] > 0


@directions
@kinds
def test_an_infinity_stays_in_its_group(runner: ConvRunner, direction: str, case: ConvCase) -> None:
    data = integers(case)
    first, second = (t.clone() for t in data.operands(direction))
    c, k = case.c // case.groups, case.k // case.groups
    first[:, c if direction == "forward" else k :] = float("inf")
    if direction == "backward_weight":
        second[:, c:] = float("nan")
    else:
        second[k:] = float("nan")
    result = runner.run(direction, case, NHWC, "bf16", (first, second), plan(runner))
    made = {"forward": (slice(None), slice(k)), "backward_input": (slice(None), slice(c)), "backward_weight": slice(k)}
    assert torch.equal(result[made[direction]], data.expected(direction, case).to(result.dtype)[made[direction]])


@batch_invariant
@kinds
def test_an_infinity_stays_in_its_windows(runner: ConvRunner, direction: str, case: ConvCase) -> None:
    """What fills the last step of a reduction up is zero, whatever lies behind the window, or in it: a window with the
    infinity has an infinite sum, not NaN."""
    first, filters = (t.clone() for t in integers(case).operands(direction))
    first[:, :, 2, 2] = float("inf")
    ones = torch.ones_like(filters)
    expected = convolve(direction, case, first, ones)
    assert expected.isinf().any() and expected.isfinite().any() and not expected.isnan().any()
    result = runner.run(direction, case, NHWC, "bf16", (first, ones), plan(runner))
    assert torch.equal(result, expected.to(result.dtype))


@pytest.mark.parametrize("width", [4, 8])
def test_the_filters_gradient_reads_no_pixel_that_no_window_has(runner: ConvRunner, width: int) -> None:
    """9 rows come in patches of 5: the tenth's windows would begin within the image, and zero times infinity is NaN."""
    case = grouped("", 1, width, width, 4, 20, 20, 3, 3, stride=(2, 2))
    data = integers(case)
    x = data.x.clone()
    x[:, :, 19:] = x[:, :, :, 19:] = float("inf")
    result = runner.run("backward_weight", case, NHWC, "bf16", (data.dy, x), plan(runner))
    assert torch.equal(result, data.expected("backward_weight", case).to(result.dtype))


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("case", [WIDTHS[0], SWEEPS[1], SWEEPS[3]], ids=str)
def test_nothing_outside_the_tensors_is_touched(runner: ConvRunner, case: ConvCase, after: bool) -> None:
    data = integers(case)
    for direction in DIRECTIONS:
        place = partial(guarded, after=after, module=runner.module)
        chosen = plan(runner, (64, 32), 2, direction)
        result = runner.run(direction, case, NHWC, "bf16", data.operands(direction), chosen, place=place)
        assert torch.equal(result, data.expected(direction, case).to(result.dtype))


@batch_invariant
@kinds
def test_bits_do_not_depend_on_the_tile_nor_the_batch(runner: ConvRunner, direction: str, case: ConvCase) -> None:
    many = dataclasses.replace(case, n=3)
    first, second = floats(many, torch.float16).operands(direction)
    together = runner.run(direction, many, NHWC, "fp16", (first, second))
    for tile in TILES[2::2]:
        assert torch.equal(runner.run(direction, many, NHWC, "fp16", (first, second), plan(runner, tile)), together)
    alone = dataclasses.replace(case, n=1)
    assert torch.equal(runner.run(direction, alone, NHWC, "fp16", (first[1:2], second))[0], together[1])


@pytest.mark.skipif(HAS_GPU, reason="the order of threads is the interpreter's")
@pytest.mark.parametrize("width", [4, 16])
def test_runs_agree_bitwise(runner: ConvRunner, width: int) -> None:
    """backward_weight's parts are added in order, and selection makes several."""
    case = grouped("", 2, width, width, 4, 17, 17, 3, 3, **AROUND)
    assert runner.plans("backward_weight", case, NHWC, "fp16")[0].splits > 4
    operands = floats(case, torch.float16).operands("backward_weight")
    before, results = runner.module.schedule(), []
    for seed in range(2):
        runner.module.set_schedule(order="random", seed=seed, delivery="random")
        results.append(runner.run("backward_weight", case, NHWC, "fp16", operands))
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])
    assert torch.equal(*results)


@pytest.mark.parametrize("element", ["fp16", "bf16"])
@directions
@pytest.mark.parametrize("case", [WIDTHS[0], WIDTHS[2], SWEEPS[1]], ids=str)
def test_rounding(runner: ConvRunner, direction: str, element: str, case: ConvCase) -> None:
    """At most twice the error of PyTorch's own operator in the same type, plus what the reduction's length allows."""
    torch_dtype = ELEMENTS[element][0]
    data: Data = floats(case, torch_dtype)
    operands = data.operands(direction)
    theirs = convolve(direction, case, *(t.to(torch_dtype) for t in operands))
    magnitude = convolve(direction, case, *(t.abs() for t in operands))
    reference = data.expected(direction, case)
    of_group = case.r * case.s / case.groups
    reduction = {"forward": case.c * of_group, "backward_input": case.k * of_group}
    length = reduction.get(direction, math.prod(case.output_shape) / case.k)
    bound = rounding_bound(reference, theirs, int(length), magnitude, torch_dtype, tf32=False)
    made = plan(runner, (64, 32), 2, direction)
    assert_within(runner.run(direction, case, NHWC, element, operands, made), reference, bound, direction)


def test_unaligned_tensors_are_served_by_another_engine(runner: ConvRunner) -> None:
    case = WIDTHS[1]
    data = integers(case)

    def shifted(flat: Tensor) -> Tensor:
        memory = flat.new_empty(flat.numel() + 1)
        return memory[1:].copy_(flat)

    for direction in DIRECTIONS:
        result = runner.run(direction, case, NHWC, "fp16", data.operands(direction), place=shifted)
        assert torch.equal(result, data.expected(direction, case).to(result.dtype))
        with pytest.raises(ValueError, match="multiple of 16 bytes"):
            runner.run(direction, case, NHWC, "fp16", data.operands(direction), plan(runner), place=shifted)


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
    runner: ConvRunner, case: ConvCase, layout: Layout, element: str, reason: str
) -> None:
    data = integers(case)
    with pytest.raises(ValueError, match=reason):
        runner.run("forward", case, layout, element, data.operands("forward"), plan(runner))
    found = explain(runner, "forward", case, layout, element, "a100")
    why = {found.why_not_grouped} if found.why_not_grouped else {c.why_not for c in found.grouped}
    assert found.chosen_grouped < 0 and any(reason in each for each in why)


RESNEXT = [case for case in workload_cases("resnext50_32x4d") if case.groups == 32]


@directions
def test_every_narrow_layer_is_served(runner: ConvRunner, direction: str) -> None:
    """On every GPU, whatever the batch, as engines add in steps of different length; and for less by the model. The
    bits of the filter's gradient depend on its patches and parts, so these are one GPU's choice."""
    narrow = [case for case in RESNEXT if case.c // 32 <= 16]
    assert {case.c // 32 for case in narrow} == {4, 8, 16} and len(narrow) < len(RESNEXT)
    for case, batch in itertools.product(RESNEXT, (1, 32, 256)):
        plans = set()
        for gpu in GPUS:
            found = explain(runner, direction, dataclasses.replace(case, n=batch), NHWC, "bf16", gpu)
            assert (found.chosen_grouped >= 0) == (case in narrow)
            if case not in narrow:
                continue
            chosen = found.grouped[found.chosen_grouped]
            plans.add(repr(chosen.plan))
            assert chosen.plan.splits * math.prod(case.weight_shape) * 4 <= WORKSPACE_LIMIT
            if batch > 1 and (direction != "backward_weight" or gpu == "h200"):
                others = [c.cost.seconds for c in found.wgmma if c.why_not is None]
                others.append(sum(part.candidates[part.chosen].cost.seconds for part in found.parts))
                assert chosen.cost.seconds < min(others)
        assert direction != "backward_weight" or len(plans) == (case in narrow)


def test_the_model_counts_reads_of_shared_memory(runner: ConvRunner) -> None:
    """By hand: resnext50's 3x3 of 128 channels in 32 groups at 56, batch 32, in patches of 64 pixels on 132 SMs."""
    case = next(case for case in RESNEXT if case.c == 128)
    found = explain(runner, "forward", case, NHWC, "bf16", "h200")
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

    found = explain(runner, "backward_weight", case, NHWC, "bf16", "h200")
    cost = {c.plan.tile_shape: c.cost for c in found.grouped}[64, 32]
    # Nine taps of a chunk that 2 groups share are 4.5 instructions' rows, for each 16 of a patch's 64 pixels.
    turns = math.ceil(4 * patches / 132)
    assert cost.arithmetic == pytest.approx(turns * 4 * 4 * (4 * (5 + 1) + 1) / 1.83e9)
    assert cost.operands == pytest.approx(turns * (10 * 10 + 8 * 8) * 64 / (5.5e12 / 132))
    assert cost.useful == pytest.approx(4.5 / 5 / 2)


@pytest.fixture
def hopper(runner: ConvRunner) -> Iterator[ConvRunner]:
    """The interpreter standing for an H200."""
    m = runner.module
    m.stand_for(m.gpu_named("h200"))
    yield runner
    m.stand_for(m.gpu_named("a100"))


@pytest.mark.skipif(HAS_GPU, reason="the interpreter stands for another GPU")
def test_it_goes_before_hoppers_kernel(hopper: ConvRunner) -> None:
    (chosen,) = hopper.plans("forward", WIDTHS[2], NHWC, "bf16")
    assert chosen.engine.name == "grouped" and repr(chosen).startswith("grouped ")
    wider = grouped("", 1, 32, 32, 4, 5, 5, 3, 3)
    assert hopper.plans("forward", wider, NHWC, "bf16")[0].engine.name == "wgmma"
