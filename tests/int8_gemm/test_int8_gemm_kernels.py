"""int8_gemm's CUDA kernels, plan by plan: int32 results equal a plain integer product, whatever the tile, the way
operands are read and the order of threads; no byte beside a tensor is touched."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.native import NativeKernels
from cnnkernels.testing.guarded import guarded
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.int8_gemm import PLAIN, integers, product, run, streaming, strided, tiles

TILES = range(3)
WORDS = 1  # the tile that reads by words


@pytest.fixture(scope="module")
def runner() -> NativeKernels:
    return native.load(MODULE)


# Of all 35937 triples of 1 .. 33 a few: each size with every other somewhere, strides and signs in turn.
SMALL = [(m, (m * 7) % 33 + 1, (m * 13 + 5) % 33 + 1) for m in range(1, 34)] + [
    tuple(random.Random(i).choices(range(1, 34), k=3)) for i in range(127)
]
STRIDES = ["rows", "columns", "odd", "odd columns", "neither"]
PAIRS = list(itertools.product(STRIDES, STRIDES))


@pytest.mark.parametrize("part", range(4))
def test_small_sizes(runner: NativeKernels, part: int) -> None:
    for i in range(part, len(SMALL), 4):
        (m, n, k), (how_a, how_b) = SMALL[i], PAIRS[i % len(PAIRS)]
        a = strided(integers(i, m, k, torch.uint8 if i % 3 == 0 else torch.int8), how_a)
        b = strided(integers(i + 1, k, n), how_b)
        zero_points = PLAIN._replace(zero_point_a=i % 5 - 2, zero_point_b=i % 7 // 2)
        assert torch.equal(run(runner, a, b, zero_points), product(a, b, zero_points)), (m, n, k, how_a, how_b)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("tile", TILES)
def test_every_tile(runner: NativeKernels, schedules: list[dict[str, Any]], tile: int, splits: int) -> None:
    """More than one tile each way, the last ones not whole; more stages than are held, the last one not whole."""
    rows, columns = runner.module.int8_tiles[tile]
    a, b = integers(1, rows + 9, 400), strided(integers(2, 400, columns + 6), "columns")
    plan = tiles(runner, True, tile, splits)
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        assert torch.equal(run(runner, a.to(DEVICE), b, plan=plan), product(a, b)), schedule


@pytest.mark.parametrize("how_b", STRIDES)
@pytest.mark.parametrize("how_a", STRIDES)
def test_every_stride(runner: NativeKernels, how_a: str, how_b: str) -> None:
    a, b = strided(integers(3, 70, 202), how_a), strided(integers(4, 202, 67), how_b)
    assert torch.equal(run(runner, a, b, plan=tiles(runner, False, WORDS)), product(a, b))


@pytest.mark.parametrize(
    ("how_a", "how_b", "k", "pack"),
    [
        ("odd", "rows", 131, "ab"),
        ("columns", "odd columns", 70, "ab"),
        ("neither", "columns", 208, "a"),
        ("rows", "odd", 192, "b"),
    ],
)
def test_copied_operands(
    runner: NativeKernels, schedules: list[dict[str, Any]], how_a: str, how_b: str, k: int, pack: str
) -> None:
    """Padded with zeros to whole 16 bytes, which no zero point must count; over several tiles of the copy."""
    a, b = strided(integers(24, 67, k, torch.uint8), how_a), strided(integers(25, k, 70), how_b)
    e = PLAIN._replace(zero_point_a=100, zero_point_b=-3)
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        assert torch.equal(run(runner, a, b, e, tiles(runner, True, 1, 2, pack)), product(a, b, e)), schedule


def test_reading_by_words_in_any_order(runner: NativeKernels, schedules: list[dict[str, Any]]) -> None:
    a, b = strided(integers(5, 66, 330), "odd"), strided(integers(6, 330, 65), "rows")
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        assert torch.equal(run(runner, a, b, plan=tiles(runner, False, WORDS, 2)), product(a, b)), schedule


@pytest.mark.parametrize("vectors", [True, False])
def test_unsigned_rows(runner: NativeKernels, vectors: bool) -> None:
    a, b = integers(7, 40, 160, torch.uint8), strided(integers(8, 160, 48), "columns")
    plan = tiles(runner, vectors, WORDS)
    assert torch.equal(run(runner, a.to(DEVICE), b, plan=plan), product(a, b))


@pytest.mark.parametrize(
    ("m", "n", "columns", "warps"), [(1, 8, 8, 1), (16, 45, 8, 4), (9, 70, 32, 3), (5, 32, 32, 16)]
)
def test_streaming(
    runner: NativeKernels, schedules: list[dict[str, Any]], m: int, n: int, columns: int, warps: int
) -> None:
    plan = streaming(runner, columns, warps)
    for k, dtype in [(16, torch.int8), (1104, torch.uint8)]:
        a, b = integers(9, m, k, dtype).to(DEVICE), strided(integers(10, k, n), "columns")
        for schedule in schedules:
            if schedule:
                runner.module.set_schedule(**schedule)
            assert torch.equal(run(runner, a, b, plan=plan), product(a, b)), (schedule, k)


def test_streaming_beside_copied_rows(runner: NativeKernels) -> None:
    a, b = strided(integers(26, 3, 320), "odd"), strided(integers(27, 320, 20), "columns")
    plan = streaming(runner, 8, 2)
    plan.pack_a = True
    assert torch.equal(run(runner, a, b, plan=plan), product(a, b))


def test_broadcast_and_overlapping_operands(runner: NativeKernels) -> None:
    one, line = integers(11, 1, 48).to(DEVICE), integers(12, 1, 200).to(DEVICE).view(-1)
    a = one.expand(20, 48)
    b = line.as_strided((48, 30), (3, 1))
    assert torch.equal(run(runner, a, b), product(a, b))
    b = line.as_strided((48, 30), (1, 0))
    assert torch.equal(run(runner, a, b), product(a, b))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_the_longest_sums(runner: NativeKernels, dtype: torch.dtype) -> None:
    """K at its limit, every product at its largest: 131071 of -128 -128; 65793 of 255 -128; with zero points."""
    k = 131071 if dtype is torch.int8 else 65793
    a = torch.full((2, k), -128 if dtype is torch.int8 else 255, device=DEVICE).to(dtype)
    b = torch.full((3, k), -128, dtype=torch.int8, device=DEVICE).t()
    assert torch.equal(run(runner, a, b), torch.full((2, 3), int(a[0, 0]) * -128 * k, dtype=torch.int32))
    short = 33025  # 255 255 33025 < 2^31, but sums on the way to it pass 2^31
    extremes = PLAIN._replace(zero_point_a=-127 if dtype is torch.int8 else 0, zero_point_b=127)
    assert torch.equal(run(runner, a[:, :short], b[:short], extremes), product(a[:, :short], b[:short], extremes))


@pytest.mark.parametrize("given", [True, False], ids=["sums_b given", "sums_b computed"])
@pytest.mark.parametrize("plan", ["vectors", "split", "words", "streaming"])
def test_zero_points(runner: NativeKernels, plan: str, given: bool) -> None:
    m, n, k = 13 if plan == "streaming" else 77, 36, 528
    a, b = integers(13, m, k, torch.uint8), strided(integers(14, k, n), "columns")
    plans = {
        "vectors": tiles(runner, True, 0),
        "split": tiles(runner, True, 1, 4),
        "words": tiles(runner, False, WORDS),
        "streaming": streaming(runner, 32, 2),
    }
    sums_b = b.int().sum(0, dtype=torch.int32) if given else None
    of_rows = torch.arange(m, dtype=torch.int32, device=DEVICE) * 19 % 256
    of_columns = torch.arange(n, dtype=torch.int32, device=DEVICE) - 20
    for za, zb in [(7, 0), (0, -3), (of_rows, 0), (of_rows, of_columns), (255, of_columns[:1])]:
        e = PLAIN._replace(zero_point_a=za, zero_point_b=zb, sums_b=sums_b)
        assert torch.equal(run(runner, a.to(DEVICE), b, e, plans[plan]), product(a, b, e))


# Memory


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("how_a, how_b", [("rows", "columns"), ("columns", "rows"), ("columns", "columns")])
@pytest.mark.parametrize(
    ("size", "copied"),
    [
        ((33, 35, 37), False),
        ((33, 35, 37), True),
        ((64, 64, 64), False),
        ((8, 128, 128), False),
        ((8, 100, 128), False),  # columns of b that only some lanes of a warp have
    ],
)
def test_nothing_beside_the_tensors_is_touched(
    runner: NativeKernels, size: tuple[int, int, int], copied: bool, how_a: str, how_b: str, after: bool
) -> None:
    m, n, k = size
    plan = tiles(runner, True, 1, pack="ab") if copied else None
    place: Callable[[Tensor], Tensor] = lambda t: guarded(t, after, runner.module)  # noqa: E731
    a, b = (place(strided(t, how)) for t, how in [(integers(20, m, k), how_a), (integers(21, k, n), how_b)])
    output = place(torch.empty(m, n))
    e = PLAIN._replace(zero_point_a=1, zero_point_b=2, bias=place(torch.zeros(n)), scale_a=place(torch.ones(m)))
    runner.int8_gemm(a, b, output, e, plan)
    assert torch.equal(output, product(a, b, e).float())


# Selection


def chosen(runner: NativeKernels, m: int, n: int, k: int, gpu: str = "a100", address: int = 256, **strides: Any) -> Any:
    a, b = strides.get("a", (k, 1)), strides.get("b", (1, k))
    place = (m, n, k), (address, *a), (256, *b), False
    return runner.module.int8_gemm_plan(*place, runner.module.gpu_named(gpu))


def test_selection(runner: NativeKernels) -> None:
    assert repr(chosen(runner, 4096, 4096, 4096)) == "vectors 128x128, splits 1"
    assert repr(chosen(runner, 1, 1024, 4096)) == "stream weights, 8 columns, 16 warps"
    assert repr(chosen(runner, 16, 11008, 4096)) == "stream weights, 32 columns, 16 warps"
    assert chosen(runner, 17, 4096, 4096).tiles.vectors
    assert chosen(runner, 64, 64, 16384).tiles.splits > 1  # one tile would leave all processors but one idle
    assert repr(chosen(runner, 4096, 4096, 4096, b=(4096, 1))) == "pack b, vectors 128x128, splits 1"
    assert repr(chosen(runner, 4096, 4096, 4099)) == "pack a and b, vectors 128x128, splits 1"
    assert repr(chosen(runner, 100, 100, 100)) == "words 64x64, splits 1"  # copies would take longer
    assert repr(chosen(runner, 1, 4096, 4096, address=264)) == "pack a, stream weights, 32 columns, 16 warps"
    assert not chosen(runner, 64, 1 << 17, 4096, b=(1 << 17, 1)).pack_b  # a copy of 512 MB


def test_selection_says_why_not(runner: NativeKernels) -> None:
    place = (17, 32, 33), (256, 33, 1), (256, 1, 33), False
    found = {repr(p): why for p, why, _ in runner.module.int8_gemm_candidates(*place, runner.module.gpu_named("h200"))}
    assert "more than 16 rows" in found["stream weights, 8 columns, 1 warps"]
    assert "not contiguous along the reduction" in found["vectors 128x128, splits 1"]
    assert found["words 64x64, splits 1"] == ""


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ((True, 0, 1), "not contiguous"),
        ((False, 0, 1), "as vectors only"),
        ((False, 1, 2), "no stage"),
        ((False, 7, 1), "no such tile"),
        ((True, 1, 1, "b"), "needs the other operand's"),
    ],
)
def test_a_plan_that_cannot_serve_is_refused(runner: NativeKernels, plan: tuple[Any, ...], why: str) -> None:
    a, b = integers(22, 3, 33).to(DEVICE), integers(23, 33, 5).to(DEVICE)
    with pytest.raises(ValueError, match=why):
        run(runner, a, b, plan=tiles(runner, *plan))
