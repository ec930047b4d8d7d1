"""The fused pair's kernels for Hopper, whose pointwise half is wgmma: exact on small integers, the same bits whatever
the order of threads, and taken on compute capability 9.0 alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DEPTHWISE_SEPARABLE_CONV2D, DepthwiseSeparableCase
from cnnkernels.testing.guarded import guarded
from helpers.depthwise_separable_conv import (
    ACTIVATIONS,
    LARGE,
    NHWC,
    SAME,
    PairRunner,
    floats,
    pair_case,
    reference,
    schedules,
)
from helpers.device import HAS_GPU
from helpers.native import why_no_wgmma

pytestmark = [
    pytest.mark.skipif(bool(why_no_wgmma()), reason=str(why_no_wgmma())),
    pytest.mark.usefixtures("on_a_hopper"),
]
READERS = ("rows_of_three", "vectors")
ELEMENTS = ("fp16", "bf16")
VECTOR_CASES = [c for c in DEPTHWISE_SEPARABLE_CONV2D if c.depthwise.c % 8 == 0 and c.depthwise.k == c.depthwise.c]


@pytest.fixture(scope="module")
def runner() -> PairRunner:
    return PairRunner()


@pytest.fixture
def scheduled(runner: PairRunner, request: pytest.FixtureRequest) -> Iterator[PairRunner]:
    if HAS_GPU:
        yield runner
        return
    before = runner.module.schedule()
    runner.module.set_schedule(**request.param)
    yield runner
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@pytest.mark.parametrize("case", VECTOR_CASES, ids=str)
def test_exact(runner: PairRunner, case: DepthwiseSeparableCase) -> None:
    """The types, tiles and activations take turns; z is saved as well."""
    turn = VECTOR_CASES.index(case)
    tensors, element, activations = operands(case), ELEMENTS[turn % 2], ACTIVATIONS[turn % 4]
    y, z = reference(case, activations, *tensors)
    plan = runner.plan(1 + turn // 2 % 2, "vectors", wgmma=True)
    ours = runner.run(case, NHWC, element, tensors, plan, activations)
    assert torch.equal(ours[0], y.to(ours[0].dtype)) and torch.equal(ours[1], z.to(ours[1].dtype))


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize("reader", READERS)
def test_every_configuration(runner: PairRunner, element: str, tile: int, reader: str) -> None:
    """More pixels, channels and filters than a block has, none a multiple; made for each tile of filters, or kept."""
    tensors = operands(LARGE)
    y, z = reference(LARGE, ("relu6", "relu"), *tensors)
    for keeps in (False, True):
        plan = runner.plan(tile, reader, 16, keeps, wgmma=True)
        ours = runner.run(LARGE, NHWC, element, tensors, plan, ("relu6", "relu"))
        assert torch.equal(ours[0], y.to(ours[0].dtype)) and torch.equal(ours[1], z.to(ours[1].dtype))


@schedules
@pytest.mark.parametrize("keeps", [False, True], ids=["made", "kept"])
def test_every_schedule(scheduled: PairRunner, keeps: bool) -> None:
    """Tensor cores read a stage while threads make the next, and copies arrive as late as the waits allow: four stages
    of channels go twice round the two tiles, and filters fill two tiles."""
    case = pair_case(1, 200, 3, 5, 104, **SAME)
    tensors = operands(case)
    y, z = reference(case, ("relu", "relu"), *tensors)
    plan = scheduled.plan(1, "rows_of_three", keeps=keeps, wgmma=True)
    ours = scheduled.run(case, NHWC, "bf16", tensors, plan, ("relu", "relu"))
    assert torch.equal(ours[0], y.to(ours[0].dtype)) and torch.equal(ours[1], z.to(ours[1].dtype))


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
def test_nothing_outside_the_tensors_is_touched(runner: PairRunner) -> None:
    case = pair_case(1, 64, 8, 8, 64, **SAME)  # 4 KB and more: what ends at a page begins at 16 bytes too
    tensors = operands(case)
    y, _ = reference(case, ("none", "none"), *tensors)
    for after in (True, False):
        plan = runner.plan(1, "rows_of_three", wgmma=True)
        ours, _ = runner.run(case, NHWC, "bf16", tensors, plan, place=lambda t, after=after: guarded(t, after))
        assert torch.equal(ours, y.to(ours.dtype))


@pytest.mark.parametrize("element", ELEMENTS)
def test_bits_depend_on_neither_the_plan_nor_the_batch(runner: PairRunner, element: str) -> None:
    case, alone = (pair_case(n, 72, 6, 7, 100, **SAME) for n in (3, 1))
    tensors = floats(case, element)

    def run(case: DepthwiseSeparableCase, x: torch.Tensor, *plan: Any) -> torch.Tensor:
        return runner.run(case, NHWC, element, (x, *tensors[1:]), runner.plan(*plan, wgmma=True), ("silu", "none"))[0]

    expected = run(case, tensors[0], 1, "rows_of_three")
    for plan in ((2, "vectors", 16), (1, "vectors", 32, True)):
        assert torch.equal(run(case, tensors[0], *plan), expected)
    assert torch.equal(run(alone, tensors[0][1:2], 1, "rows_of_three")[0], expected[1])


def test_what_it_cannot_serve_is_refused(runner: PairRunner) -> None:
    case = pair_case(1, 8, 4, 4, 8)
    for element, tile, reader in (("tf32", 2, "vectors"), ("bf16", 0, "vectors"), ("bf16", 1, "elements")):
        with pytest.raises(ValueError, match="this element type has no such kernel"):
            runner.run(case, NHWC, element, operands(case), runner.plan(tile, reader, wgmma=True))
    kept = pair_case(1, 1280, 2, 2, 200)
    with pytest.raises(ValueError, match="bytes of shared memory, and this GPU gives one"):
        runner.run(kept, NHWC, "bf16", operands(kept), runner.plan(2, "vectors", 8, True, True))


def test_selection(runner: PairRunner) -> None:
    """On Hopper alone, in channels_last; its tiles of 128 pixels are too few blocks for one small image."""

    def plan(c: int, size: int, filters: int, gpu: str = "h200", dtype: int = 3, layout: int = 1, n: int = 64) -> Any:
        geometry = runner.module.ConvGeometry(*pair_case(n, c, size, size, filters, **SAME).geometry)
        return runner.module.depthwise_separable_conv_plan(
            dtype, layout, False, geometry, filters, runner.module.gpu_named(gpu)
        )

    assert plan(512, 14, 512).wgmma and "wgmma" in repr(plan(512, 14, 512))
    assert plan(576, 14, 96).wgmma and plan(576, 14, 96, dtype=2).wgmma
    for other in (plan(512, 14, 512, "a100"), plan(512, 14, 512, "rtx5090"), plan(512, 14, 512, layout=0)):
        assert not other.wgmma
    assert not plan(960, 7, 160, n=1).wgmma
