"""conv2d's kernel for Hopper, run by the interpreter (or on a Hopper): every tile, direction and element type must give
the exact result on small integers, whatever the order of threads and the moment at which copies arrive."""

from __future__ import annotations

import dataclasses
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
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import DIRECTIONS, ELEMENTS, ConvRunner, Data, convolve, floats, integers
from helpers.conv_sm90 import CLUSTERS, TILES, plan, serves
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.native import why_no_wgmma

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why_no_wgmma()), reason=str(why_no_wgmma())),
    pytest.mark.usefixtures("on_a_hopper"),
]

NHWC = Layout.NHWC
SHORT_RUNS = ["256x128", "256x64", "128x64", "128x128 ping-pong"]  # also serve where taps share a stage
RUNS = [(d, e) for d in DIRECTIONS for e in ("fp16", "bf16", "tf32") if e != "tf32" or d == "forward"]

# More channels, filters and taps than a stage, a tile and the ring hold, none a multiple of them; pixels end within a
# tile and images within it too.
LARGE = ConvCase("large", 3, 136, 9, 10, 264, 3, 2, padding=(1, 1, 1, 0))
# The same with channels in whole runs of 128 bytes, as clusters want them. In forward and backward_input the last
# row tiles of a cluster lie outside the result; in backward_weight those of 256 rows do.
WHOLE = ConvCase("whole runs", 3, 128, 9, 10, 320, 3, 2, padding=(1, 1, 1, 0))
CASES = [
    LARGE,
    ConvCase("1x1", 2, 72, 8, 10, 136, 1, 1),
    ConvCase("1x1 stride 2 leaves phases empty", 2, 72, 9, 10, 136, 1, 1, (2, 2)),
    ConvCase("stride 2", 2, 72, 11, 10, 72, 3, 3, (2, 2), (1, 1, 1, 1)),
    ConvCase("stride and dilation share a factor", 1, 64, 12, 11, 72, 3, 3, (2, 2), (2, 2, 2, 2), (2, 2)),
    ConvCase("20 phases in two launches", 1, 64, 14, 13, 72, 3, 3, (5, 4), (2, 2, 2, 2), (2, 1)),
    ConvCase("stride above kernel", 1, 8, 10, 11, 8, 2, 2, (4, 3)),
    ConvCase("uneven everything", 2, 24, 11, 8, 40, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1)),
    ConvCase("uneven strides over several tiles", 2, 16, 13, 25, 16, 2, 3, (1, 2)),
    ConvCase("padding above the kernel", 1, 8, 4, 3, 8, 3, 2, padding=(5, 4, 3, 6)),
    ConvCase("1x1 with padding is no plain matrix", 1, 8, 4, 3, 8, 1, 1, padding=(1, 1, 1, 1)),
    ConvCase("dilation of the width", 1, 16, 6, 12, 16, 3, 3, padding=(1, 1, 3, 3), dilation=(1, 3)),
    ConvCase("row image", 2, 8, 1, 33, 8, 1, 5, padding=(0, 0, 2, 2)),
    ConvCase("one product", 1, 8, 1, 1, 8, 1, 1),
    ConvCase("two groups", 2, 128, 6, 5, 128, 3, 3, padding=(1, 1, 1, 1), groups=2),
    ConvCase("groups that end within a tile", 1, 128, 5, 5, 272, 2, 2, groups=2),
    ConvCase("two taps a stage, one left over", 2, 32, 6, 5, 32, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("four taps a stage, strided", 1, 16, 9, 8, 16, 3, 3, (2, 2), (1, 1, 1, 1)),
    ConvCase("three runs of channels in stages of two", 1, 96, 5, 6, 96, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("narrow groups", 1, 96, 6, 5, 48, 3, 3, padding=(1, 1, 1, 1), groups=3),
    ConvCase("narrow groups of 1x1", 2, 64, 5, 6, 64, 1, 1, groups=4),
]
elements = pytest.mark.parametrize("element", ["fp16", "bf16", "tf32"])
runs = pytest.mark.parametrize(("direction", "element"), RUNS)
cases = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def runner() -> ConvRunner:
    return ConvRunner(native.load(MODULE).module, DEVICE)


@pytest.fixture
def restored(runner: ConvRunner) -> Iterator[ConvRunner]:
    before = None if HAS_GPU else runner.module.schedule()
    yield runner
    if before is not None:
        runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


def check(runner: ConvRunner, direction: str, element: str, case: ConvCase, chosen: Any) -> None:
    data = integers(case)
    bias = data.b if direction == "forward" else None
    result = runner.run(direction, case, NHWC, element, data.operands(direction), chosen, bias=bias)
    expected = data.expected(direction, case) + (data.b.view(-1, 1, 1) if direction == "forward" else 0)
    assert torch.equal(result, expected.to(result.dtype))


def test_the_tiles_have_the_names_this_file_uses(runner: ConvRunner) -> None:
    assert runner.module.conv_sm90_tiles == len(TILES + CLUSTERS)
    for tile in TILES + CLUSTERS:
        shape = plan(runner, tile).tile_shape
        assert "x".join(map(str, shape[:2])) == tile.partition(" ")[0]
        assert runner.module.conv_tile_shapes["wgmma"].index(shape) == (TILES + CLUSTERS).index(
            tile
        )  # so tables name it
        assert repr(plan(runner, tile)).startswith(f"wgmma {tile}")


@runs
@pytest.mark.parametrize("tile", TILES)
def test_every_tile(runner: ConvRunner, direction: str, element: str, tile: str) -> None:
    """With two blocks each takes several tiles in turn, and the ring goes on from one to the next."""
    short = tile in SHORT_RUNS or direction == "backward_weight"
    chosen = plan(runner, tile, 3 if direction == "backward_weight" else 1, 2)
    check(runner, direction, element, LARGE if short else WHOLE, chosen)
    if tile in SHORT_RUNS and direction != "backward_weight":
        check(runner, direction, element, WHOLE, chosen)


# What two blocks of a cluster can meet in: an odd number of row tiles, of clusters, of blocks asked for; phases without
# taps; several groups, parts and launches; stages that end with a share of the columns.
OF_CLUSTERS = [
    (WHOLE, 5),
    (ConvCase("1x1", 5, 64, 8, 10, 192, 1, 1), 2),
    (ConvCase("1x1 stride 2 leaves phases empty", 2, 64, 9, 10, 128, 1, 1, (2, 2)), 2),
    (ConvCase("stride and dilation share a factor", 1, 64, 12, 11, 64, 3, 3, (2, 2), (2, 2, 2, 2), (2, 2)), 3),
    (ConvCase("two groups", 2, 128, 6, 5, 128, 3, 3, padding=(1, 1, 1, 1), groups=2), 0),
    (ConvCase("one product", 1, 64, 1, 1, 64, 1, 1), 1),  # one block's rows all lie outside, and more
]


@runs
@pytest.mark.parametrize("tile", CLUSTERS)
def test_every_cluster(runner: ConvRunner, direction: str, element: str, tile: str) -> None:
    check(runner, direction, element, WHOLE, plan(runner, tile, 2 if direction == "backward_weight" else 1, 2))


@pytest.mark.parametrize(("case", "blocks"), OF_CLUSTERS, ids=lambda value: str(value))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_case_of_clusters(runner: ConvRunner, direction: str, case: ConvCase, blocks: int) -> None:
    splits = 3 if direction == "backward_weight" else 1
    check(runner, direction, "bf16", case, plan(runner, CLUSTERS[blocks % 2], splits, blocks))


@pytest.mark.counted
def test_row_tiles_come_in_pairs(runner: ConvRunner) -> None:
    """270 pixels are 3 row tiles of 128, so 2 pairs, each of 2 columns of 256 filters."""
    runner.module.reset_statistics()
    check(runner, "forward", "bf16", WHOLE, plan(runner, CLUSTERS[0]))
    assert runner.module.statistics()["blocks"] == 2 * 2 * 2


@pytest.mark.skipif(HAS_GPU, reason="orders of threads are the interpreter's")
@pytest.mark.parametrize(("order", "seed", "delivery"), [("reversed", 0, "late"), ("random", 1, "random"),
                                                         ("random", 2, "late"), ("random", 3, "early")])  # fmt: skip
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_clusters_in_any_order(restored: ConvRunner, direction: str, order: str, seed: int, delivery: str) -> None:
    """Copies reach the two blocks at moments of their own, and either may be ahead by all the ring allows."""
    case = ConvCase("", 2, 64, 9, 10, 192, 3, 2, (2, 1), (1, 1, 1, 0))
    restored.module.set_schedule(order=order, seed=seed, delivery=delivery)
    check(restored, direction, "bf16", case, plan(restored, CLUSTERS[seed % 2], blocks=2))


@runs
def test_bits_do_not_depend_on_clusters(runner: ConvRunner, direction: str, element: str) -> None:
    case = ConvCase("", 3, 64, 10, 9, 64, 3, 3, (2, 1), (1, 1, 1, 1))
    operands = floats(case, ELEMENTS[element][0]).operands(direction)
    of = [runner.run(direction, case, NHWC, element, operands, plan(runner, tile)) for tile in ["64x128", *CLUSTERS]]
    assert torch.equal(of[0], of[1]) and torch.equal(of[0], of[2])


@cases
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("tile", ["256x128", "128x64", "128x128 ping-pong"])
def test_every_case(runner: ConvRunner, direction: str, case: ConvCase, tile: str) -> None:
    blocks = 1 if "ping-pong" in tile else 0
    if not serves(direction, case):
        with pytest.raises(ValueError, match="136 channels into the next group"):
            check(runner, direction, "bf16", case, plan(runner, tile))
        return
    check(runner, direction, "bf16", case, plan(runner, tile, blocks=blocks))


@pytest.mark.skipif(HAS_GPU, reason="orders of threads are the interpreter's")
@pytest.mark.parametrize(
    ("order", "seed", "delivery"),
    [("reversed", 0, "late"), ("ordered", 0, "early"), ("random", 1, "random"), ("random", 2, "late"),
     ("random", 3, "early"), ("random", 4, "random")],
)  # fmt: skip
@runs
def test_every_schedule(runner: ConvRunner, direction: str, element: str, order: str, seed: int, delivery: str) -> None:
    case = ConvCase("", 1, 136, 9, 10, 136, 3, 2, (2, 1), (1, 1, 1, 0))
    before = runner.module.schedule()
    runner.module.set_schedule(order=order, seed=seed, delivery=delivery)
    try:
        splits = 2 if direction == "backward_weight" else 1
        for tile in ("128x64", "128x128 ping-pong"):
            check(runner, direction, element, case, plan(runner, tile, splits, 1 if "ping-pong" in tile else 2))
    finally:
        runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@pytest.mark.parametrize("blocks", [1, 7, 1000])
def test_bands_of_tiles_cover_the_result(runner: ConvRunner, blocks: int) -> None:
    """21 row tiles are a band of 16 and one of 5, each of two columns."""
    case = ConvCase("", 21, 64, 8, 8, 136, 1, 1)
    check(runner, "forward", "fp16", case, plan(runner, "64x128", blocks=blocks))
    check(runner, "forward", "fp16", dataclasses.replace(case, k=256, groups=1, n=17), plan(runner, "64x128"))


@pytest.mark.parametrize("splits", [1, 2, 3, 16])
def test_any_number_of_splits(runner: ConvRunner, splits: int) -> None:
    """Also more parts than there are stages: the surplus adds zeros."""
    case = ConvCase("", 3, 72, 9, 10, 40, 3, 3, padding=(1, 1, 1, 1))
    check(runner, "backward_weight", "bf16", case, plan(runner, "64x256", splits))


@runs
@pytest.mark.parametrize(("channels", "tiles"), [(72, SHORT_RUNS), (64, TILES)])
def test_bits_do_not_depend_on_tile_or_batch(
    runner: ConvRunner, direction: str, element: str, channels: int, tiles: list[str]
) -> None:
    """The order of a sum is the layer's; backward_weight's sum runs over the batch, so there it is the tile alone."""
    case = ConvCase("", 5, channels, 10, 9, channels, 3, 3, (2, 1), (1, 1, 1, 1))
    data = floats(case, ELEMENTS[element][0])
    first, second = data.operands(direction)
    together = [runner.run(direction, case, NHWC, element, (first, second), plan(runner, tile)) for tile in tiles]
    assert all(torch.equal(together[0], other) for other in together[1:])
    if direction == "backward_weight":
        return
    for sample in (0, 3, 4):
        alone = dataclasses.replace(case, n=1)
        single = runner.run(
            direction, alone, NHWC, element, (first[sample : sample + 1], second), plan(runner, "128x64")
        )
        assert torch.equal(single[0], together[0][sample])


@runs
def test_rounding(runner: ConvRunner, direction: str, element: str) -> None:
    """At most twice the error of PyTorch's own operator in the same type, plus what the reduction's length allows."""
    case = ConvCase("", 3, 72, 12, 11, 40, 3, 3, (1, 1), (1, 1, 1, 1))
    torch_dtype, _, tf32 = ELEMENTS[element]
    operands = floats(case, torch_dtype).operands(direction)
    reference = convolve(direction, case, *operands)
    theirs = convolve(direction, case, *(t.to(torch_dtype) for t in operands))
    magnitude = convolve(direction, case, *(t.abs() for t in operands))
    reduction = {"forward": 72 * 9, "backward_input": 40 * 9, "backward_weight": 3 * 12 * 11}[direction]
    splits = 2 if direction == "backward_weight" else 1
    result = runner.run(direction, case, NHWC, element, operands, plan(runner, "128x64", splits))
    bound = rounding_bound(reference, theirs, reduction, magnitude, torch_dtype, tf32)
    assert_within(result, reference, bound, f"{direction} {element}")


@pytest.mark.parametrize(("element", "ulp"), [("fp16", 2.0**-10), ("bf16", 2.0**-7)])
def test_bias_is_added_before_the_only_rounding(runner: ConvRunner, element: str, ulp: float) -> None:
    """1 + ulp/2 is a tie that would round to 1; a bias of ulp/8 decides it only if it is added in fp32."""
    case = ConvCase("", 1, 8, 1, 1, 8, 1, 1)
    x, w = torch.zeros(case.input_shape), torch.ones(case.weight_shape)
    x[0, :2, 0, 0] = torch.tensor([1.0, ulp / 2])
    y = runner.run("forward", case, NHWC, element, (x, w), plan(runner), bias=torch.full((8,), ulp / 8))
    assert torch.equal(y, torch.full_like(y, 1 + ulp))


def test_tf32_operands_are_rounded_to_nearest(runner: ConvRunner) -> None:
    """1 + 1.5 * 2^-11 rounds up to 1 + 2^-10, where cutting bits off would give 1; the copy rounds ties to even."""
    case = ConvCase("", 1, 8, 2, 4, 8, 1, 1)
    for value, rounded in [(1 + 1.5 * 2.0**-11, 1 + 2.0**-10), (1 + 2.0**-11, 1.0), (1 + 3 * 2.0**-11, 1 + 2.0**-9)]:
        x, w = torch.zeros(case.input_shape), torch.zeros(case.weight_shape)
        x[:, 0], w[:, 0] = value, 1
        assert runner.run("forward", case, NHWC, "tf32", (x, w), plan(runner)).max().item() == rounded
        assert runner.run("forward", case, NHWC, "tf32", (x / value, w * value), plan(runner)).max().item() == rounded


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("width", "kernel"), [(64, 3), (32, 3), (16, 3), (16, 1)])
def test_an_infinity_stays_in_its_group(runner: ConvRunner, direction: str, width: int, kernel: int) -> None:
    """A stage that reached into the next group's channels would multiply them by zero: infinity times zero is NaN."""
    case = ConvCase("", 1, 4 * width, 5, 4, 4 * width, kernel, kernel, padding=(kernel // 2,) * 4, groups=4)
    data = integers(case)
    first, second = (t.clone() for t in data.operands(direction))
    first[:, width:] = float("inf")
    if direction == "backward_weight":
        second[:, width:] = float("nan")
    result = runner.run(direction, case, NHWC, "bf16", (first, second), plan(runner, "256x128"))
    expected = data.expected(direction, case).to(result.dtype)
    group = (slice(0, width),) if direction == "backward_weight" else (slice(None), slice(0, width))
    assert torch.equal(result[group], expected[group])


@pytest.mark.parametrize("channels", [8, 16, 24, 32, 40, 96])
@elements
def test_runs_of_few_channels(runner: ConvRunner, element: str, channels: int) -> None:
    """128, 64 or 32 bytes of channels a tap: each fills the rest of its last stage with zeros."""
    check(runner, "forward", element, ConvCase("", 1, channels, 6, 7, 8, 3, 3), plan(runner, "128x64"))


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["end", "start"])
@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_nothing_outside_the_tensors_is_touched(runner: ConvRunner, case: ConvCase, after: bool) -> None:
    data: Data = integers(case)
    for direction in DIRECTIONS:
        chosen = plan(runner, "64x256", 2) if direction == "backward_weight" else plan(runner, "256x128")
        place = partial(guarded, after=after, module=runner.module)
        result = runner.run(direction, case, NHWC, "bf16", data.operands(direction), chosen, place=place)
        assert torch.equal(result, data.expected(direction, case).to(result.dtype))


REFUSED = [
    ("only channels_last", "forward", Layout.NCHW, "bf16", CASES[1]),
    ("multiplies float16, bfloat16 and tf32", "forward", NHWC, "fp32", CASES[1]),
    ("along the reduction alone", "backward_input", NHWC, "tf32", CASES[1]),
    ("4 input and 8 output channels are not both", "forward", NHWC, "fp16", ConvCase("", 1, 4, 5, 5, 8, 3, 3)),
    ("8 input and 12 output channels are not", "forward", NHWC, "fp16", ConvCase("", 1, 8, 5, 5, 12, 3, 3)),
    ("8 channels into the next group", "forward", NHWC, "fp16", ConvCase("", 1, 16, 5, 5, 32, 3, 3, groups=2)),
    ("strides up to 8, not 9", "forward", NHWC, "fp16", ConvCase("", 1, 8, 20, 20, 8, 3, 3, (1, 9))),
    ("255 from tap to tap", "forward", NHWC, "fp16", ConvCase("", 1, 8, 1, 300, 8, 1, 2, dilation=(1, 256))),
    ("128 before", "backward_input", NHWC, "fp16", ConvCase("", 1, 8, 1, 140, 8, 1, 130)),
]


@pytest.mark.parametrize(("why", "direction", "layout", "element", "case"), REFUSED, ids=lambda v: str(v)[:30])
def test_what_it_cannot_serve_is_refused_with_the_reason(
    runner: ConvRunner, why: str, direction: str, layout: Layout, element: str, case: ConvCase
) -> None:
    with pytest.raises(ValueError, match=why):
        runner.run(direction, case, layout, element, integers(case).operands(direction), plan(runner))


def test_plans_that_make_no_sense_are_refused(runner: ConvRunner) -> None:
    case = CASES[1]

    def run(direction: str, chosen: Any, **how: Any) -> None:
        runner.run(direction, case, NHWC, "bf16", integers(case).operands(direction), chosen, **how)

    with pytest.raises(ValueError, match="only backward_weight splits"):
        run("forward", plan(runner, splits=2))
    with pytest.raises(ValueError, match="splits must be at least 1"):
        run("backward_weight", plan(runner, splits=0))
    with pytest.raises(ValueError, match="a cluster shares stages whose 128 bytes are of one tap"):
        narrow = ConvCase("", 1, 16, 5, 5, 16, 3, 3)
        runner.run("forward", narrow, NHWC, "bf16", integers(narrow).operands("forward"), plan(runner, CLUSTERS[0]))
    with pytest.raises(ValueError, match="with so few channels several taps share one"):
        runner.run("forward", narrow, NHWC, "bf16", integers(narrow).operands("forward"), plan(runner, "128x256"))
    nowhere = plan(runner)
    nowhere.tile = len(TILES + CLUSTERS)
    with pytest.raises(ValueError, match="no such tile"):
        run("forward", nowhere)

    def shifted(flat: Tensor) -> Tensor:
        memory = flat.new_empty(flat.numel() + 1)
        memory[1:] = flat
        return memory[1:]

    with pytest.raises(ValueError, match="multiple of 16 bytes"):
        run("forward", plan(runner), place=shifted)


@runs
def test_runs_agree_bitwise(restored: ConvRunner, direction: str, element: str) -> None:
    case = ConvCase("", 2, 72, 12, 11, 40, 3, 3, (1, 1), (1, 1, 1, 1))
    data = floats(case, ELEMENTS[element][0])
    results = []
    for seed in range(3):
        if not HAS_GPU:
            restored.module.set_schedule(order="random", seed=seed, delivery="random")
        chosen = plan(restored, "128x64", 2 if direction == "backward_weight" else 1, blocks=2)
        results.append(restored.run(direction, case, NHWC, element, data.operands(direction), chosen))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
