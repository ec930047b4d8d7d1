"""INT8 products by TMA and wgmma, run by the interpreter (or on a Hopper): exact whatever the tile, the parts, the
order of threads and the moment at which copies arrive; zero-point padding; refusals with their reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.int8 import reference as int8_reference
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from cnnkernels.testing.guarded import guarded
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.int8_conv import Shape, convolve, operands
from helpers.int8_conv import run as run_conv2d
from helpers.int8_gemm import PLAIN, full, integers, pitched, product, residual, run, sm90, strided
from helpers.int8_gemm import SM90_TILES as TILES
from helpers.native import why_no_wgmma

pytestmark = [
    pytest.mark.skipif(bool(why_no_wgmma()), reason=str(why_no_wgmma())),
    pytest.mark.usefixtures("on_a_hopper"),
]

SHORT_RUNS = TILES[2:4]  # also where several taps share a stage
SIGNS = [torch.int8, torch.uint8]


@pytest.fixture(scope="module")
def runner() -> NativeKernels:
    return native.load(MODULE)


def of_conv2d(runner: NativeKernels, tile: str, splits: int = 1, blocks: int = 0) -> Any:
    plan = runner.module.Int8ConvPlan()
    plan.tiles = sm90(runner, tile, splits, blocks).tiles
    return plan


def test_the_tiles_have_the_names_this_file_uses(runner: NativeKernels) -> None:
    found = runner.module.int8_sm90_tiles
    assert [f"{t[0]}x{t[1]}{' ping-pong' * t[2]}{' cluster' * (t[3] > 1)}" for t in found] == TILES
    assert [name for name, t in zip(TILES, found, strict=True) if t[4]] == SHORT_RUNS
    for tile in TILES:
        assert repr(sm90(runner, tile, 3)) == f"wgmma {tile}, splits 3"


# Matrices


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("dtype", SIGNS)
@pytest.mark.parametrize("tile", TILES)
def test_every_tile(runner: NativeKernels, tile: str, dtype: torch.dtype, splits: int) -> None:
    """Several tiles each way, the last not whole, by two blocks (or clusters); more stages than the ring has, the last
    not whole, in parts of uneven length."""
    m, n, k = 270, 264, 9 * 128 + 5
    a, b = integers(1, m, k, dtype), integers(2, k, n)
    chosen = sm90(runner, tile, splits, 4 if "cluster" in tile else 2)
    assert torch.equal(run(runner, pitched(a), pitched(b.t()).t(), plan=chosen), product(a, b))


@pytest.mark.parametrize("tile", TILES)
def test_every_schedule(runner: NativeKernels, schedules: list[dict[str, Any]], tile: str) -> None:
    m, n, k = 140, 136, 9 * 128 + 16
    a, b = integers(3, m, k, torch.uint8), integers(4, k, n)
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        blocks = 1 if "ping-pong" in tile else 2
        found = run(runner, pitched(a), pitched(b.t()).t(), plan=sm90(runner, tile, 2, blocks))
        assert torch.equal(found, product(a, b)), schedule


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (1, 33, 16), (17, 1, 129), (65, 130, 31), (64, 128, 128)])
def test_sizes_that_fill_no_tile(runner: NativeKernels, m: int, n: int, k: int) -> None:
    a, b = integers(5, m, k), integers(6, k, n)
    for tile in ("64x128", "128x128 ping-pong"):
        assert torch.equal(run(runner, pitched(a), pitched(b.t()).t(), plan=sm90(runner, tile)), product(a, b))


@pytest.mark.parametrize("splits", [1, 2, 9])
def test_parts_of_any_length(runner: NativeKernels, splits: int) -> None:
    """Nine stages in parts of 5 and 4, and of one each; zero points of both operands, given and computed sums."""
    a, b = integers(7, 70, 1150, torch.uint8), integers(8, 1150, 36)
    e = PLAIN._replace(zero_point_a=torch.arange(70, dtype=torch.int32, device=DEVICE), zero_point_b=-3)
    for given in (None, b.int().sum(0, dtype=torch.int32).to(DEVICE)):
        e = e._replace(sums_b=given)
        found = run(runner, pitched(a), pitched(b.t()).t(), e, sm90(runner, "64x128", splits))
        assert torch.equal(found, product(a, b, e))


@pytest.mark.parametrize("dtype", SIGNS)
def test_the_longest_sums(runner: NativeKernels, dtype: torch.dtype) -> None:
    k = 131071 if dtype is torch.int8 else 65793
    a = pitched(torch.full((2, k), -128 if dtype is torch.int8 else 255).to(dtype))
    b = pitched(torch.full((3, k), -128, dtype=torch.int8)).t()
    found = run(runner, a, b, plan=sm90(runner, "64x128", 2))
    assert torch.equal(found, torch.full((2, 3), int(a[0, 0]) * -128 * k, dtype=torch.int32))


@pytest.mark.parametrize("n", [72, 35], ids=["whole runs", "odd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, torch.uint8])
@pytest.mark.parametrize("splits", [1, 2])
def test_the_epilogue(runner: NativeKernels, dtype: torch.dtype, n: int, splits: int) -> None:
    m, k = 70, 272
    a, b = pitched(integers(9, m, k)), pitched(integers(10, k, n).t()).t()
    more = full(
        m, n, residual=residual(torch.int8, m, n), residual_scale=0.07, residual_zero_point=9, activation="relu"
    )
    for e in (full(m, n, zero_point_a=5), more):
        expected = torch.empty(m, n, dtype=dtype, device=DEVICE)
        int8_reference.int8_gemm(a, b, expected, e)
        assert torch.equal(run(runner, a, b, e, sm90(runner, "128x64", splits), dtype), expected.cpu())


def test_operands_that_were_copied(runner: NativeKernels) -> None:
    a, b = strided(integers(11, 67, 131, torch.uint8), "odd"), strided(integers(12, 131, 70), "rows")
    e = PLAIN._replace(zero_point_a=100, zero_point_b=-3)
    found = run(runner, a, b, e, sm90(runner, "64x128", 1, pack="ab"))
    assert torch.equal(found, product(a, b, e))


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
def test_nothing_beside_the_matrices_is_touched(runner: NativeKernels, after: bool) -> None:
    place: Callable[[Tensor], Tensor] = lambda t: guarded(t, after, runner.module)  # noqa: E731
    a, b = integers(13, 64, 128), integers(14, 128, 80)
    output = place(torch.empty(64, 80))
    e = PLAIN._replace(bias=place(torch.zeros(80)), scale_a=place(torch.ones(64)))
    runner.int8_gemm(place(a), place(b.t().contiguous()).t(), output, e, sm90(runner, "128x64"))
    assert torch.equal(output, product(a, b).float())


def shifted(values: Tensor) -> Tensor:
    memory = torch.zeros(values.numel() + 1, dtype=values.dtype, device=DEVICE)[1:]
    return memory.view(values.shape).copy_(values)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("columns of a", "runs of the reduction"),
        ("odd rows", "multiples of 16 bytes"),
        ("overlapping rows", "rows of a and columns of b apart"),
        ("odd address", "begin at a multiple of 16 bytes"),
        ("parts", "a split has no stage"),
        ("tile", "no such tile"),
    ],
)
def test_what_it_cannot_serve_is_refused_with_the_reason(runner: NativeKernels, how: str, why: str) -> None:
    a, b, plan = integers(15, 48, 48).to(DEVICE), integers(16, 48, 48).to(DEVICE).t(), sm90(runner, "128x64")
    if how == "columns of a":
        a = a.t()
    elif how == "odd rows":
        a = a[:, :40].contiguous()
        b = b[:40]
    elif how == "overlapping rows":
        a = a[:1].expand(48, 48)
    elif how == "odd address":
        a = shifted(a)
    elif how == "parts":
        plan.tiles = runner.module.Int8Plan(False, 3, 2, wgmma=True)
    else:
        plan.tiles = runner.module.Int8Plan(False, len(TILES), 1, wgmma=True)
    with pytest.raises(ValueError, match=why):
        run(runner, a, b, plan=plan)


# Convolutions: tile, then the shape, each with its reason.
CASES = {
    "whole stages": ("128x256", Shape(2, 128, 9, 7, 264, 3, 3, padding=(1, 1))),
    "a cluster": ("128x256 cluster", Shape(3, 128, 9, 10, 20, 3, 2, padding=(1, 1))),
    "few rows": ("64x128", Shape(1, 256, 7, 7, 136, 3, 3, padding=(1, 1))),
    "two taps a stage": ("128x128 ping-pong", Shape(2, 64, 9, 9, 132, 3, 3, padding=(1, 1))),
    "four taps a stage": ("128x64", Shape(1, 32, 13, 11, 70, 3, 3, padding=(1, 1))),
    "half a run": ("128x64", Shape(1, 16, 9, 10, 33, 3, 2, padding=(1, 1))),
    "three runs in stages of four": ("128x128 ping-pong", Shape(1, 96, 6, 7, 20, 3, 3, padding=(1, 1))),
    "strided": ("128x64", Shape(2, 48, 11, 12, 24, 3, 3, stride=(2, 3), padding=(1, 2))),
    "taps apart": ("128x64", Shape(1, 32, 13, 12, 24, 3, 2, dilation=(2, 3), padding=(3, 4))),
    "taps apart, strided": ("128x64", Shape(1, 32, 14, 15, 24, 3, 3, (2, 3), (4, 2), (3, 2))),
    "more padding after": ("128x64", Shape(1, 32, 7, 6, 24, 4, 2, padding=(1, 0), after=(2, 1))),
    "padding beyond the filter": ("128x64", Shape(1, 32, 3, 4, 20, 2, 3, padding=(3, 5))),
    "image below the filter": ("128x64", Shape(1, 32, 2, 3, 16, 5, 4, padding=(2, 2))),
    "1 x 1": ("128x128 ping-pong", Shape(2, 80, 9, 10, 40, 1, 1)),
    "1 x 1 with padding": ("128x256", Shape(1, 128, 3, 4, 24, 1, 1, padding=(1, 2))),
    "groups": ("128x64", Shape(1, 128, 9, 8, 48, 3, 3, padding=(1, 0), groups=2)),
    "groups of odd filters": ("128x128 ping-pong", Shape(2, 96, 6, 5, 33, 3, 3, padding=(1, 1), groups=3)),
    "wide groups of 1 x 1": ("64x128", Shape(2, 256, 5, 6, 132, 1, 1, groups=2)),
    "one product": ("128x64", Shape(1, 16, 1, 1, 1, 1, 1)),
}


@pytest.mark.parametrize("dtype", SIGNS)
@pytest.mark.parametrize("name", CASES)
def test_every_convolution(runner: NativeKernels, name: str, dtype: torch.dtype) -> None:
    """Without a zero point, with one, and with one beside the filters' sums; whole and in parts."""
    tile, shape = CASES[name]
    x, w = operands(shape, dtype)
    zero_point = -77 if dtype is torch.int8 else 200
    expected = {z: convolve(shape, x, w, z) for z in (0, zero_point)}
    sums = w.int().sum((1, 2, 3), dtype=torch.int32)
    for z, given, splits in ((0, None, 1), (zero_point, None, 1), (zero_point, sums, 2)):
        splits = min(splits, shape.r * shape.s * shape.c // shape.groups // 128 or 1)
        e = PLAIN._replace(zero_point_a=z, sums_b=given)
        found = run_conv2d(runner, shape, x, w, e, of_conv2d(runner, tile, splits, 2))
        assert torch.equal(found, expected[z]), (z, splits)


@pytest.mark.parametrize("name", ["two taps a stage", "groups", "a cluster"])
def test_convolutions_in_any_order(runner: NativeKernels, schedules: list[dict[str, Any]], name: str) -> None:
    tile, shape = CASES[name]
    x, w = operands(shape, torch.uint8)
    expected = convolve(shape, x, w, 7)
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        plan = of_conv2d(runner, tile, 3, 1 if "ping-pong" in tile else 2)
        assert torch.equal(run_conv2d(runner, shape, x, w, PLAIN._replace(zero_point_a=7), plan), expected), schedule


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_the_epilogue_of_a_convolution(runner: NativeKernels, dtype: torch.dtype, splits: int) -> None:
    tile, shape = CASES["groups"]
    g, (x, w), generator = shape.geometry, operands(shape), torch.Generator().manual_seed(3)
    last = {"memory_format": torch.channels_last}
    e = Int8Epilogue(
        scale_a=0.02,
        scale_b=(torch.rand(g.k, generator=generator) * 0.01).to(DEVICE),
        zero_point_a=-3,
        bias=torch.randn(g.k, generator=generator).to(DEVICE),
        residual=torch.randint(-128, 128, (g.n, g.k, g.p, g.q), generator=generator).to(DEVICE, torch.int8, **last),
        residual_scale=0.05,
        residual_zero_point=-128,
        activation="hardswish",
        out_scale=0.1,
        out_zero_point=4,
    )
    expected = torch.zeros(g.n, g.k, g.p, g.q, dtype=dtype, device=DEVICE).contiguous(**last)
    int8_reference.int8_conv(x, w, expected, g, e)
    assert torch.equal(run_conv2d(runner, shape, x, w, e, of_conv2d(runner, tile, splits), dtype), expected.cpu())


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("name", ["four taps a stage", "groups of odd filters"])
def test_nothing_beside_the_images_is_touched(runner: NativeKernels, name: str, after: bool) -> None:
    tile, shape = CASES[name]
    place: Callable[[Tensor], Tensor] = lambda t: guarded(t, after, runner.module)  # noqa: E731
    g, (x, w) = shape.geometry, operands(shape)
    output = torch.zeros(g.n, g.k, g.p, g.q, dtype=torch.int32).contiguous(memory_format=torch.channels_last)
    output = place(output)
    e = PLAIN._replace(zero_point_a=9)
    runner.int8_conv(place(x), place(w), output, g, e, of_conv2d(runner, tile))
    assert torch.equal(output, convolve(shape, x, w, 9))


@pytest.mark.parametrize(
    ("why", "shape"),
    [
        ("multiples of 16", Shape(1, 24, 5, 5, 8, 3, 3)),
        ("into the next group's", Shape(1, 96, 5, 5, 8, 3, 3, groups=2)),
        ("strides up to 8", Shape(1, 16, 20, 20, 8, 3, 3, stride=(1, 9))),
        ("128 before and after", Shape(1, 16, 4, 4, 8, 1, 1, stride=(8, 8), padding=(129, 0))),
        ("255 from tap to tap", Shape(1, 16, 1, 300, 8, 1, 2, dilation=(1, 256))),
        ("several taps share one", Shape(1, 32, 5, 5, 8, 3, 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_convolutions_it_cannot_serve_are_refused(runner: NativeKernels, why: str, shape: Shape) -> None:
    x, w = operands(shape)
    with pytest.raises(ValueError, match=why):
        run_conv2d(runner, shape, x, w, plan=of_conv2d(runner, "128x256"))


def test_selection(runner: NativeKernels) -> None:
    """On a Hopper by cost, elsewhere never; what TMA cannot bring stays with the other kernels."""

    def gemm(m: int, n: int, k: int, gpu: str = "h200", address: int = 256) -> str:
        place = (m, n, k), (address, k, 1), (256, 1, k), False
        return repr(runner.module.int8_gemm_plan(*place, runner.module.gpu_named(gpu)))

    def conv2d(shape: Shape, gpu: str = "h200", aligned: bool = True) -> str:
        geometry = runner.module.ConvGeometry(*shape.geometry)
        return repr(runner.module.int8_conv_plan(geometry, False, aligned, runner.module.gpu_named(gpu)))

    assert gemm(8192, 8192, 8192) == "wgmma 128x256 cluster, splits 1"
    assert gemm(64, 4096, 4096).startswith("wgmma 64x128")
    assert int(gemm(64, 128, 65536)[-2:]) >= 16  # one tile would leave 131 processors idle
    assert gemm(16, 4096, 4096).startswith("stream weights")
    assert gemm(8192, 8192, 8192, "a100") == gemm(8192, 8192, 8192, "rtx4090") == "vectors 128x128, splits 1"
    assert "wgmma" not in gemm(100, 100, 100, address=257)
    layer = Shape(64, 256, 56, 56, 256, 3, 3, padding=(1, 1))
    assert conv2d(layer).startswith("wgmma 128x256")
    assert "wgmma" not in conv2d(layer, "a100") + conv2d(layer, aligned=False)
    assert conv2d(Shape(64, 64, 28, 28, 128, 3, 3, padding=(1, 1))) == "wgmma 128x128 ping-pong, splits 1"

    place = (256, 256, 256), (256, 256, 1), (256, 1, 256), False
    for gpu, why in (("h200", ""), ("a100", "of compute capability 9.0 alone")):
        found = runner.module.int8_gemm_candidates(*place, runner.module.gpu_named(gpu))
        reasons = {repr(p): reason for p, reason, _ in found if "wgmma" in repr(p)}
        assert len(reasons) >= len(TILES) and all(
            reason.endswith(why) and bool(reason) == bool(why) for reason in reasons.values()
        )
