"""conv2d's CUDA kernels, configuration by configuration: every tile, pair of loaders and element type must give the
exact result on small integers, the same bits whatever the order of threads, and touch no byte beside its tensors."""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import CONV2D, ConvCase
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import DIRECTIONS, ELEMENTS, ConvRunner, Data, convolve, floats, integers
from helpers.device import DEVICE, HAS_GPU, MODULE

pytestmark = pytest.mark.long

NCHW, NHWC = Layout.NCHW, Layout.NHWC

# More rows, columns and depth than the largest tile and the ring of stages hold, none a multiple of them.
LARGE = ConvCase("large", 2, 72, 9, 10, 136, 3, 2, padding=(1, 1, 1, 0))
LARGE_1X1 = ConvCase("large 1x1", 2, 72, 8, 10, 136, 1, 1)
STEM = ConvCase("stem", 2, 3, 15, 13, 40, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3))

# One problem for each pair of loaders that memory can ask for: A, B, direction, layout, problem.
LOADERS = [
    ("along_depth", "along_depth", "forward", NHWC, LARGE),
    ("along_depth", "along_depth", "backward_weight", NCHW, LARGE_1X1),
    ("along_depth", "along_side", "backward_input", NHWC, LARGE),
    ("along_side", "along_side", "backward_weight", NHWC, LARGE),
    ("along_side", "along_side", "backward_input", NCHW, LARGE_1X1),
    ("along_side", "along_depth", "forward", NCHW, LARGE_1X1),
    ("elements", "along_depth", "forward", NCHW, LARGE),
    ("elements", "along_side", "backward_weight", NHWC, STEM),
    ("elements", "elements", "forward", NHWC, STEM),
    ("elements", "elements", "backward_input", NCHW, LARGE),
    ("elements", "elements", "backward_weight", NCHW, LARGE),
]
TILES = range(3)
loaders = pytest.mark.parametrize(
    ("a", "b", "direction", "layout", "case"), LOADERS, ids=lambda value: getattr(value, "name", str(value)).lower()
)
elements = pytest.mark.parametrize("element", list(ELEMENTS))
directions = pytest.mark.parametrize("direction", DIRECTIONS)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())


@pytest.fixture(scope="module")
def runner() -> ConvRunner:
    return ConvRunner(native.load(MODULE).module, DEVICE)


@pytest.fixture
def scheduled(runner: ConvRunner, request: pytest.FixtureRequest) -> Iterator[ConvRunner]:
    """The runner under an order of threads and a delivery of asynchronous copies."""
    if HAS_GPU:
        yield runner
        return
    before = runner.module.schedule()
    runner.module.set_schedule(**request.param)
    yield runner
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


schedules = pytest.mark.parametrize(
    "scheduled",
    [
        {"order": "ordered", "seed": 0, "delivery": "late"},
        {"order": "reversed", "seed": 0, "delivery": "late"},
        {"order": "random", "seed": 1, "delivery": "random"},
        {"order": "random", "seed": 2, "delivery": "late"},
    ],
    ids=lambda value: "-".join(map(str, value.values())),
    indirect=True,
)


def has_tile(element: str, tile: int) -> bool:
    return not (element == "fp64" and tile == 0)


@loaders
@elements
@pytest.mark.parametrize("tile", TILES)
def test_every_configuration(
    runner: ConvRunner, a: str, b: str, direction: str, layout: Layout, case: ConvCase, element: str, tile: int
) -> None:
    data = integers(case)
    splits = 3 if direction == "backward_weight" else 1
    plan = runner.plan(element, tile, a, b, splits)
    if not has_tile(element, tile):
        with pytest.raises(ValueError, match="128x128"):
            runner.run(direction, case, layout, element, data.operands(direction), plan)
        return
    result = runner.run(direction, case, layout, element, data.operands(direction), plan)
    assert torch.equal(result, data.expected(direction, case).to(result.dtype))


@loaders
@elements
@schedules
def test_every_schedule(
    scheduled: ConvRunner, a: str, b: str, direction: str, layout: Layout, case: ConvCase, element: str
) -> None:
    """A missing barrier or wait shows as poison or as wrong numbers in one of these orders."""
    smaller = dataclasses.replace(case, n=1, k=40)
    data = integers(smaller)
    plan = scheduled.plan(element, 1, a, b, 2 if direction == "backward_weight" else 1)
    result = scheduled.run(direction, smaller, layout, element, data.operands(direction), plan)
    assert torch.equal(result, data.expected(direction, smaller).to(result.dtype))


@pytest.mark.counted
@loaders
@pytest.mark.parametrize("element", ["tf32", "fp16"])
@pytest.mark.parametrize("tile", TILES)
def test_ldmatrix_meets_no_bank_twice(
    runner: ConvRunner, a: str, b: str, direction: str, layout: Layout, case: ConvCase, element: str, tile: int
) -> None:
    """A swizzle that is wrong on both sides computes the right numbers, slowly."""
    data = integers(case)
    runner.module.reset_statistics()
    runner.run(direction, case, layout, element, data.operands(direction), runner.plan(element, tile, a, b))
    trips = runner.module.statistics()
    if element == "fp16" or "along_side" not in (a, b):
        assert trips["ldmatrix trips"] > 0
    assert trips.get("ldmatrix trips", 0) == trips.get("ldmatrix trips needed", 0)


@directions
@layouts
@elements
def test_bits_do_not_depend_on_the_plan(runner: ConvRunner, direction: str, layout: Layout, element: str) -> None:
    """The order of summation is the depth's, whatever the tile and the loaders: only splits may change the bits (and
    packing, which is the layer's)."""
    case = ConvCase("", 2, 16, 9, 8, 72, 3, 3, (2, 1), (1, 1, 1, 1))
    data = floats(case, ELEMENTS[element][0])
    chosen = runner.tiled_plan(direction, case, layout, element)
    chosen.splits = 1
    gathered = [
        runner.run(
            direction, case, layout, element, data.operands(direction),
            runner.plan(element, tile, "elements", "elements", packing=chosen.packing.name),
        )
        for tile in TILES
        if has_tile(element, tile)
    ]  # fmt: skip
    vectors = runner.run(direction, case, layout, element, data.operands(direction), chosen)
    assert all(torch.equal(result, vectors) for result in gathered)


@elements
@layouts
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
def test_a_sample_does_not_depend_on_its_batch(
    runner: ConvRunner, direction: str, layout: Layout, element: str
) -> None:
    case = ConvCase("", 40, 16, 10, 9, 24, 3, 3, (2, 1), (1, 1, 1, 1))
    data = floats(case, ELEMENTS[element][0])
    first, second = data.operands(direction)
    together = runner.run(direction, case, layout, element, (first, second))
    for sample in (0, 17, 39):
        alone = dataclasses.replace(case, n=1)
        single = runner.run(direction, alone, layout, element, (first[sample : sample + 1], second))
        assert torch.equal(single[0], together[sample])


@elements
@layouts
@directions
def test_runs_agree_bitwise(runner: ConvRunner, direction: str, layout: Layout, element: str) -> None:
    case = ConvCase("", 6, 16, 12, 11, 24, 3, 3, (1, 1), (1, 1, 1, 1))
    data = floats(case, ELEMENTS[element][0])
    results = []
    before = None if HAS_GPU else runner.module.schedule()
    for seed in range(3):
        if before is not None:
            runner.module.set_schedule(order="random", seed=seed, delivery="random")
        results.append(runner.run(direction, case, layout, element, data.operands(direction)))
    if before is not None:
        runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


ROUNDING = [
    ConvCase("", 3, 16, 12, 11, 24, 3, 3, (1, 1), (1, 1, 1, 1)),
    ConvCase("", 2, 9, 11, 8, 10, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1)),
    ConvCase("", 8, 64, 7, 7, 32, 3, 3, (1, 1), (1, 1, 1, 1)),
]


@elements
@layouts
@directions
@pytest.mark.parametrize("case", ROUNDING, ids=range(len(ROUNDING)))
def test_rounding(runner: ConvRunner, direction: str, layout: Layout, element: str, case: ConvCase) -> None:
    """At most twice the error of PyTorch's own operator in the same type, plus what the reduction's length allows."""
    torch_dtype, _, tf32 = ELEMENTS[element]
    data = floats(case, torch_dtype)
    operands = data.operands(direction)
    reference = data.expected(direction, case)
    theirs = convolve(direction, case, *(t.to(torch_dtype) for t in operands))
    magnitude = convolve(direction, case, *(t.abs() for t in operands))
    g = case.geometry
    reduction = {
        "forward": g.c // g.groups * g.r * g.s,
        "backward_input": g.k // g.groups * g.r * g.s,
        "backward_weight": g.n * g.p * g.q,
    }[direction]
    result = runner.run(direction, case, layout, element, operands)
    bound = rounding_bound(reference, theirs, reduction, magnitude, torch_dtype, tf32)
    assert_within(result, reference, bound, f"{direction} {element}")


@pytest.mark.parametrize(("element", "ulp"), [("fp16", 2.0**-10), ("bf16", 2.0**-7)])
@layouts
def test_bias_is_added_before_the_only_rounding(runner: ConvRunner, element: str, ulp: float, layout: Layout) -> None:
    """1 + ulp/2 is a tie that would round to 1; a bias of ulp/8 decides it only if it is added in fp32."""
    case = ConvCase("", 1, 2, 1, 1, 1, 1, 1)
    x, w = torch.ones(case.input_shape), torch.tensor([1.0, ulp / 2]).view(case.weight_shape)
    y = runner.run("forward", case, layout, element, (x, w), bias=torch.tensor([ulp / 8]))
    assert y.item() == 1 + ulp


@layouts
@pytest.mark.parametrize("tile", TILES)
def test_tf32_operands_are_rounded_to_nearest(runner: ConvRunner, layout: Layout, tile: int) -> None:
    """1 + 2^-11 lies between two tf32 numbers: the tie goes away from zero, where cutting bits off would give 1."""
    case = ConvCase("", 1, 8, 2, 4, 8, 1, 1)
    tie, rounded = 1 + 2.0**-11, 1 + 2.0**-10
    one = Data(*(torch.zeros(s) for s in (case.input_shape, case.weight_shape, (8,), case.output_shape)))
    one.x[:, 0], one.w[:, 0], one.dy[:, 0] = tie, tie, tie
    for direction in DIRECTIONS:
        for gathered in (False, True):
            plan = runner.tiled_plan(direction, case, layout, "tf32")
            plan.tile = tile
            if gathered:
                plan.a = plan.b = runner.module.ConvLoader.elements
            result = runner.run(direction, case, layout, "tf32", one.operands(direction), plan)
            assert result.max().item() == rounded**2 * (8 if direction == "backward_weight" else 1)


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("case", [*CONV2D, LARGE, STEM], ids=str)
@layouts
@pytest.mark.parametrize("element", ["fp64", "fp32", "tf32", "bf16"])
@pytest.mark.parametrize("after", [True, False], ids=["end", "start"])
def test_nothing_outside_the_tensors_is_touched(
    runner: ConvRunner, case: ConvCase, layout: Layout, element: str, after: bool
) -> None:
    data = integers(case)
    for direction in DIRECTIONS:
        bias = data.b if direction == "forward" else None
        result = runner.run(
            direction,
            case,
            layout,
            element,
            data.operands(direction),
            bias=bias,
            place=partial(guarded, after=after, module=runner.module),
        )
        expected = data.expected(direction, case) + (data.b.view(-1, 1, 1) if direction == "forward" else 0)
        assert torch.equal(result, expected.to(result.dtype))


@elements
@layouts
@directions
def test_unaligned_pointers(runner: ConvRunner, direction: str, layout: Layout, element: str) -> None:
    """A view that begins one element into its memory is gathered element by element, with the same bits. (Hopper's
    engine has TMA alone, so there another one serves such a view: the same sums in other steps.)"""
    case = ConvCase("", 2, 16, 6, 7, 24, 3, 3, (1, 1), (1, 1, 1, 1))
    by_tma = runner.plans(direction, case, layout, element)[0].engine.name == "wgmma"
    data = integers(case) if by_tma else floats(case, ELEMENTS[element][0])

    def shifted(flat: Tensor) -> Tensor:
        memory = flat.new_empty(flat.numel() + 1)
        memory[1:] = flat
        return memory[1:]

    aligned = runner.run(direction, case, layout, element, data.operands(direction))
    if direction == "backward_weight":
        assert runner.plans(direction, case, layout, element)[0].splits == 1  # so the workspace may be shifted too
    unaligned = runner.run(direction, case, layout, element, data.operands(direction), place=shifted)
    assert torch.equal(aligned, unaligned)


def untouched_zeros(count: int, dtype: torch.dtype, device: str) -> Tensor:
    """Zeros that cost no memory on the CPU until they are written."""
    if device != "cpu":
        return torch.zeros(count, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype)


@pytest.mark.parametrize("element", ["fp32", "fp16"])
@layouts
@pytest.mark.parametrize("direction", ["forward", "backward_weight"])
@pytest.mark.parametrize("taps", [1, 2, 3])
def test_offsets_beyond_32_bits(runner: ConvRunner, direction: str, layout: Layout, element: str, taps: int) -> None:
    """Nine pixels, 23,200 apart in a plane of 2.15e9: almost no memory is touched, most offsets are huge. With one
    tap the windows' distances pass 2^31 elements, with three the taps'."""
    case = ConvCase("", 1, 1, 46401, 46401, 1, taps, taps, (23200, 23200), (0, 0, 0, 0), (23200, 23200))
    assert case.geometry.p == 4 - taps and math.prod(case.input_shape) > 2**31
    torch_dtype, dtype, tf32 = ELEMENTS[element]
    x = untouched_zeros(math.prod(case.input_shape), torch_dtype, runner.device).view(case.input_shape)
    seen = torch.arange(1.0, 10).view(3, 3)
    x[0, 0, ::23200, ::23200] = seen.to(x)
    small = ConvCase("", 1, 1, 3, 3, 1, taps, taps)
    data = integers(small)
    second = (data.w if direction == "forward" else data.dy).to(torch_dtype).contiguous().to(runner.device)
    results = (4 - taps if direction == "forward" else taps) ** 2
    result = torch.full((results,), float("nan"), dtype=torch_dtype, device=runner.device)
    rest = (dtype, int(layout), tf32, runner.geometry(case), 0)
    if direction == "forward":
        runner.module.conv_forward(x.data_ptr(), second.data_ptr(), 0, result.data_ptr(), *rest)
        expected = convolve("forward", small, seen[None, None].double(), data.w)
    else:
        runner.module.conv_backward_weight(second.data_ptr(), x.data_ptr(), result.data_ptr(), 0, *rest)
        expected = convolve("backward_weight", small, data.dy, seen[None, None].double())
    assert torch.equal(result.cpu(), expected.reshape(-1).to(torch_dtype))


def test_a_plan_that_cannot_serve_is_refused_with_the_reason(runner: ConvRunner) -> None:
    data = integers(STEM)

    def run(direction: str, element: str, *plan: object) -> None:
        runner.run(direction, STEM, NHWC, element, data.operands(direction), runner.plan(element, *plan))

    with pytest.raises(ValueError, match="A is not contiguous and aligned"):
        run("forward", "fp16", 1, "along_depth", "elements")
    with pytest.raises(ValueError, match="only backward_weight splits"):
        run("forward", "fp16", 1, "elements", "elements", 2)
    with pytest.raises(ValueError, match="no such tile"):
        run("forward", "fp16", 3, "elements", "elements")
    with pytest.raises(ValueError, match="splits must be at least 1"):
        run("backward_weight", "fp16", 1, "elements", "elements", 0)
    wrong_engine = runner.plan("fp32", 1, "elements", "elements")
    with pytest.raises(ValueError, match="fma is for float64 and exact float32"):
        runner.run("forward", STEM, NHWC, "fp16", data.operands("forward"), wrong_engine)


@pytest.mark.parametrize("splits", [1, 2, 5, 64])
@pytest.mark.parametrize("element", ["fp64", "bf16"])
def test_any_number_of_splits(runner: ConvRunner, element: str, splits: int) -> None:
    """Also more parts than there are stages: the surplus adds zeros."""
    case = ConvCase("", 3, 8, 9, 10, 8, 3, 3, (1, 1), (1, 1, 1, 1))
    data: Data = integers(case)
    plan = runner.plan(element, 1, "along_side", "along_side", splits)
    result = runner.run("backward_weight", case, NHWC, element, data.operands("backward_weight"), plan)
    assert torch.equal(result, data.expected("backward_weight", case).to(result.dtype))
