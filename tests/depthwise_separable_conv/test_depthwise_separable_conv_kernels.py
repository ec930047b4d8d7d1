"""The fused pair's CUDA kernels, configuration by configuration: every tile, reader and element type must give the
exact result on small integers, the same bits whatever the order of threads, and touch no byte beside its tensors."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DEPTHWISE_SEPARABLE_CONV2D, DepthwiseSeparableCase
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import ELEMENTS
from helpers.depthwise_separable_conv import (
    CONFIGURATIONS,
    LARGE,
    NCHW,
    NHWC,
    READERS,
    SAME,
    TILES,
    PairRunner,
    exists,
    floats,
    pair_case,
    reference,
    schedules,
)
from helpers.device import DEVICE, HAS_GPU

elements = pytest.mark.parametrize("element", list(ELEMENTS))
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())


SMALL = pair_case(2, 40, 5, 6, 24, **SAME)


configurations = pytest.mark.parametrize(("element", "tile", "reader"), CONFIGURATIONS)


@pytest.fixture(scope="module")
def runner() -> PairRunner:
    return PairRunner()


@pytest.fixture
def scheduled(runner: PairRunner, request: pytest.FixtureRequest) -> Iterator[PairRunner]:
    """The runner under an order of threads and a delivery of asynchronous copies."""
    if HAS_GPU:
        yield runner
        return
    before = runner.module.schedule()
    runner.module.set_schedule(**request.param)
    yield runner
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@configurations
def test_every_configuration(runner: PairRunner, element: str, tile: int, reader: str) -> None:
    tensors = operands(LARGE)
    y, z = reference(LARGE, ("relu6", "relu"), *tensors)
    for layout in Layout if reader == "elements" else [NHWC]:
        # a block for each tile of filters, or one that keeps the intermediate for all of them
        keeps = (tile + READERS.index(reader) + layout) % 2 == 0
        plan = runner.plan(tile, reader, 4 << READERS.index(reader) * 2, keeps)
        ours = runner.run(LARGE, layout, element, tensors, plan, ("relu6", "relu"))
        assert torch.equal(ours[0], y.to(ours[0].dtype))
        assert torch.equal(ours[1], z.to(ours[1].dtype))


def test_what_does_not_exist_is_refused_with_the_reason(runner: PairRunner) -> None:
    def run(case: DepthwiseSeparableCase, layout: Layout, element: str, *plan: Any) -> None:
        runner.run(case, layout, element, operands(case), runner.plan(*plan))

    for element in ELEMENTS:
        for tile in TILES:
            for reader in READERS:
                if not exists(element, tile, reader):
                    with pytest.raises(ValueError, match="this element type has no such kernel"):
                        run(SMALL, NHWC, element, tile, reader)
    not_made_for = "the input is not made for that reader"
    odd = pair_case(1, 5, 4, 4, 8)
    strided = pair_case(1, 8, 7, 7, 8, stride=(1, 2))
    for case, layout, reader in [(SMALL, NCHW, "vectors"), (odd, NHWC, "vectors"), (strided, NHWC, "rows_of_three")]:
        with pytest.raises(ValueError, match=not_made_for):
            run(case, layout, "bf16", 0, reader)
    with pytest.raises(ValueError, match="bytes of shared memory, and this GPU gives one"):
        run(pair_case(1, 1280, 2, 2, 200), NHWC, "bf16", 2, "vectors", 8, True)
    with pytest.raises(ValueError, match="no such tile"):
        run(SMALL, NHWC, "bf16", 3, "vectors")
    for columns in (0, 2, 24, 128):
        with pytest.raises(ValueError, match=f"power of two from 4 to the tile's rows, but got {columns}"):
            run(SMALL, NHWC, "bf16", 0, "vectors", columns)


@schedules
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_every_schedule(scheduled: PairRunner, element: str, reader: str) -> None:
    """A missing barrier or wait shows as poison or as wrong numbers in one of these orders."""
    case = pair_case(1, 136 if element == "bf16" else 72, 5, 6, 40, **SAME)
    tensors = operands(case)
    y, _ = reference(case, ("relu", "relu"), *tensors)
    ours, _ = scheduled.run(case, NHWC, element, tensors, scheduled.plan(0, reader), ("relu", "relu"))
    assert torch.equal(ours, y.to(ours.dtype))


@schedules
@pytest.mark.parametrize("element", ["tf32", "fp16"])
def test_every_schedule_of_a_kept_intermediate(scheduled: PairRunner, element: str) -> None:
    """Its stages are read again by every tile of filters, and the output's way out lies beside them."""
    case = pair_case(1, 72, 3, 5, 80, **SAME)
    tensors = operands(case)
    y, z = reference(case, ("relu", "relu"), *tensors)
    plan = scheduled.plan(0, "rows_of_three", keeps=True)
    ours = scheduled.run(case, NHWC, element, tensors, plan, ("relu", "relu"))
    assert torch.equal(ours[0], y.to(ours[0].dtype)) and torch.equal(ours[1], z.to(ours[1].dtype))


@schedules
def test_every_schedule_of_groups_of_taps(scheduled: PairRunner) -> None:
    """More taps than shared memory holds weights of: groups of them take turns there."""
    case = next(c for c in DEPTHWISE_SEPARABLE_CONV2D if c.depthwise.r * c.depthwise.s > 49)
    tensors = operands(case)
    y, _ = reference(case, ("none", "none"), *tensors)
    ours, _ = scheduled.run(case, NHWC, "bf16", tensors)
    assert torch.equal(ours, y.to(ours.dtype))


@pytest.mark.counted
@pytest.mark.parametrize("element", ["tf32", "fp16"])
@pytest.mark.parametrize("tile", [0, 2])
def test_ldmatrix_meets_no_bank_twice(runner: PairRunner, element: str, tile: int) -> None:
    runner.module.reset_statistics()
    runner.run(LARGE, NHWC, element, operands(LARGE), runner.plan(tile, "vectors"))
    trips = runner.module.statistics()
    assert trips["ldmatrix trips"] == trips["ldmatrix trips needed"] > 0


@elements
def test_bits_do_not_depend_on_the_plan(runner: PairRunner, element: str) -> None:
    """The taps in their order, then the channels in theirs: whatever the tile, the reader, the patch and the layout.
    And the intermediate alone is the one that is saved."""
    case = pair_case(2, 72, 6, 7, 40, **SAME)
    tensors = floats(case, element)
    expected = runner.run(case, NCHW, element, tensors, activations=("silu", "gelu"))
    assert torch.equal(runner.intermediate(case, NCHW, element, tensors), expected[1])
    for tile, reader in [(tile, reader) for e, tile, reader in CONFIGURATIONS if e == element]:
        plan = runner.plan(tile, reader, 16, keeps=reader == "vectors")
        y, z = runner.run(case, NHWC, element, tensors, plan, ("silu", "gelu"))
        assert torch.equal(y, expected[0]) and torch.equal(z, expected[1])
        assert torch.equal(runner.intermediate(case, NHWC, element, tensors, plan), z)


@elements
@layouts
def test_a_sample_does_not_depend_on_its_batch(runner: PairRunner, layout: Layout, element: str) -> None:
    case = pair_case(21, 16, 7, 5, 40, **SAME)
    tensors = floats(case, element)
    together, _ = runner.run(case, layout, element, tensors)
    alone = pair_case(1, 16, 7, 5, 40, **SAME)
    for sample in (0, 13, 20):
        single, _ = runner.run(alone, layout, element, (tensors[0][sample : sample + 1], *tensors[1:]))
        assert torch.equal(single[0], together[sample])


@pytest.mark.skipif(HAS_GPU, reason="a GPU takes orders of its own")
@pytest.mark.parametrize("element", ["fp32", "bf16"])
def test_runs_agree_bitwise(runner: PairRunner, element: str) -> None:
    tensors = floats(SMALL, element)
    before = runner.module.schedule()
    results = []
    for seed in range(3):
        runner.module.set_schedule(order="random", seed=seed, delivery="random")
        results.append(runner.run(SMALL, NHWC, element, tensors)[0])
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@elements
@layouts
@pytest.mark.parametrize("activations", [("none", "none"), ("silu", "gelu")], ids="-".join)
def test_rounding(runner: PairRunner, layout: Layout, element: str, activations: tuple[str, str]) -> None:
    """At most twice the error of PyTorch's two layers in the same type, plus what the reductions' lengths allow."""
    torch_dtype, _, tf32 = ELEMENTS[element]
    case = pair_case(2, 24, 9, 8, 20, 3, 5, stride=(2, 1), padding=(1, 1, 2, 2))
    tensors = floats(case, element)
    exact, _ = reference(case, activations, *tensors)
    theirs, _ = reference(case, activations, *(t.to(torch_dtype) for t in tensors))
    absolute = tuple(t.abs() for t in tensors)
    magnitude, _ = reference(case, ("none", "none"), *absolute)
    ours, _ = runner.run(case, layout, element, tensors, activations=activations)
    bound = rounding_bound(exact, theirs, case.depthwise.k + 15, magnitude, torch_dtype, tf32)
    assert_within(ours, exact, bound, f"{element} {activations}")


@pytest.mark.parametrize("element", ["fp16", "bf16"])
def test_rounds_where_two_layers_round(runner: PairRunner, element: str) -> None:
    """z to the type, its activation to the type: each tie below decides between two values of y."""
    ulp = {"fp16": 2.0**-10, "bf16": 2.0**-7}[element]
    case = pair_case(1, 8, 1, 1, 8, 1, 1)
    x, first, second = (torch.zeros(s) for s in (case.input_shape, case.depthwise_shape, case.pointwise_shape))
    x[0, 0], first[0], second[0, 0] = 1, 1, 1
    bias = torch.zeros(8)
    bias[0] = ulp * 0.75  # z = 1 + ulp after rounding
    y, z = runner.run(case, NHWC, element, (x, first, second, bias, torch.full((8,), -1.0)))
    assert z[0, 0].item() == 1 + ulp and y[0, 0].item() == ulp


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("case", DEPTHWISE_SEPARABLE_CONV2D, ids=str)
@layouts
def test_nothing_outside_the_tensors_is_touched(
    runner: PairRunner, case: DepthwiseSeparableCase, layout: Layout
) -> None:
    element = ("fp32", "bf16")[(DEPTHWISE_SEPARABLE_CONV2D.index(case) + layout) % 2]
    tensors = operands(case)
    y, _ = reference(case, ("none", "none"), *tensors)
    for after in (True, False):
        ours, _ = runner.run(case, layout, element, tensors, place=lambda t, after=after: guarded(t, after))
        assert torch.equal(ours, y.to(ours.dtype))


@elements
def test_unaligned_pointers(runner: PairRunner, element: str) -> None:
    """A view that begins one element into its memory is read element by element, with the same bits."""

    def shifted(flat: Tensor) -> Tensor:
        memory = flat.new_empty(flat.numel() + 1)
        memory[1:] = flat
        return memory[1:]

    tensors = floats(SMALL, element)
    aligned, unaligned = (runner.run(SMALL, NHWC, element, tensors, place=place) for place in (torch.clone, shifted))
    assert torch.equal(aligned[0], unaligned[0]) and torch.equal(aligned[1], unaligned[1])


@layouts
@pytest.mark.parametrize("taps", [1, 2])
def test_offsets_beyond_32_bits(runner: PairRunner, layout: Layout, taps: int) -> None:
    """Nine pixels, 23,200 apart in a plane of 2.15e9: almost no memory is touched, most offsets are huge."""
    step = 23200
    case = pair_case(1, 1, 46401, 46401, 1, taps, taps, stride=(step, step), dilation=(step, step))
    count = math.prod(case.input_shape)
    assert count > 2**31
    if HAS_GPU:
        x = torch.zeros(count, dtype=torch.float16, device=DEVICE)
    else:  # zeros that cost no memory until they are written
        x = torch.frombuffer(mmap.mmap(-1, count * 2), dtype=torch.float16)
    x = x.view(case.input_shape)
    seen = torch.arange(1.0, 10).view(1, 1, 3, 3)
    x[..., ::step, ::step] = seen.to(x)
    first = torch.ones(1, 1, taps, taps, dtype=torch.float16, device=DEVICE)
    second = torch.full((1,), 3, dtype=torch.float16, device=DEVICE)
    y = torch.full((math.prod(case.output_shape),), math.nan, dtype=torch.float16, device=DEVICE)
    geometry = runner.module.ConvGeometry(*case.geometry)
    runner.module.depthwise_separable_conv_forward(
        x.data_ptr(), first.data_ptr(), second.data_ptr(), 0, 0, y.data_ptr(), 0, 2, int(layout), False, geometry, 1,
        0, 0, 0.0, 0,
    )  # fmt: skip
    assert torch.equal(y.cpu().view(case.output_shape), 3 * F.conv2d(seen, torch.ones(1, 1, taps, taps)).half())


def test_selection(runner: PairRunner) -> None:
    """What is selected on an A100 for well-known pairs, in bf16 at batch 64."""

    def plan(c: int, size: int, filters: int, stride: int = 1, layout: Layout = NHWC, n: int = 64) -> Any:
        case = pair_case(n, c, size, size, filters, stride=(stride, stride), **SAME)
        geometry = runner.module.ConvGeometry(*case.geometry)
        a100 = runner.module.gpu_named("a100")
        return runner.module.depthwise_separable_conv_plan(3, int(layout), False, geometry, filters, a100)

    assert plan(32, 112, 16).tile_shape == (64, 32)
    assert plan(144, 56, 24).reader.name == "rows_of_three"
    assert plan(144, 56, 32, 2).reader.name == "vectors"
    assert plan(576, 14, 96).tile_shape == (128, 96) and not plan(576, 14, 96).keeps
    assert plan(512, 14, 512).keeps  # rather one block an SM than the intermediate made four times
    assert plan(960, 7, 160, n=1).tile_shape == (64, 32)  # one image: rather the same work twice than idle SMs
    assert not plan(960, 7, 160, n=1).keeps
    assert plan(144, 56, 24, layout=NCHW).reader.name == "elements"
    assert plan(144, 56, 24, layout=NCHW).patch_columns >= 16
