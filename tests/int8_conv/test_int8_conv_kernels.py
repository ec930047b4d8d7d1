"""int8_conv2d's CUDA kernels: int32 results equal an integer convolution bit for bit, whatever the shape, the kernel,
its tile and the order of threads; padding counts as the zero point; no byte beside a tensor is touched."""

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
from helpers.int8_conv import PLAIN, Shape, convolve, integers, nhwc, operands, run


@pytest.fixture(scope="module")
def runner() -> NativeKernels:
    return native.load(MODULE)


# Each with the reason it is here.
CASES = {
    "vectors": Shape(2, 32, 7, 9, 20, 3, 3, padding=(1, 1)),
    "vectors of taps apart": Shape(1, 16, 9, 8, 12, 3, 2, dilation=(2, 3), padding=(2, 3)),
    "vectors of groups": Shape(1, 64, 6, 5, 24, 3, 3, padding=(1, 0), groups=2),
    "1 x 1": Shape(2, 48, 5, 7, 33, 1, 1),
    "1 x 1, strided": Shape(1, 16, 9, 11, 8, 1, 1, stride=(2, 3)),
    "first layer": Shape(1, 3, 17, 19, 16, 7, 7, stride=(2, 2), padding=(3, 3)),
    "one channel": Shape(2, 1, 12, 11, 5, 5, 3, padding=(2, 1)),
    "odd channels": Shape(1, 19, 8, 7, 7, 3, 3, padding=(1, 1), stride=(1, 2)),
    "odd channels, taps apart": Shape(1, 5, 9, 9, 6, 3, 3, dilation=(1, 2), padding=(1, 2)),
    "odd groups": Shape(1, 15, 6, 7, 9, 3, 3, padding=(1, 1), groups=3),
    "words of groups": Shape(1, 16, 5, 6, 8, 2, 3, groups=4, padding=(0, 2)),
    "uneven padding": Shape(1, 16, 6, 6, 8, 4, 4, padding=(1, 1), after=(1, 1)),
    "padding beyond the filter": Shape(1, 16, 3, 4, 8, 2, 2, padding=(3, 4)),
    "image below the filter": Shape(1, 16, 2, 2, 8, 5, 5, padding=(2, 2)),
    "depthwise": Shape(2, 12, 7, 21, 12, 3, 3, padding=(1, 1), groups=12),
    "depthwise, odd channels": Shape(1, 7, 6, 10, 7, 3, 3, padding=(1, 1), groups=7),
    "depthwise, strided": Shape(1, 132, 7, 11, 132, 3, 3, stride=(2, 2), padding=(1, 1), groups=132),
    "depthwise, 5 x 5": Shape(1, 8, 9, 9, 8, 5, 5, padding=(2, 2), groups=8),
    "depthwise, taps apart": Shape(1, 8, 9, 13, 8, 3, 3, dilation=(2, 2), padding=(2, 2), groups=8),
    "depthwise, strides of 3": Shape(1, 6, 8, 14, 6, 2, 3, stride=(2, 3), groups=6),
    "depthwise, 2 filters a channel": Shape(1, 6, 6, 9, 12, 3, 3, padding=(1, 1), groups=6),
    "depthwise, 3 filters a channel": Shape(1, 5, 6, 7, 15, 3, 2, stride=(1, 2), padding=(1, 0), groups=5),
    "depthwise, more taps than are held": Shape(1, 4, 15, 16, 4, 11, 9, padding=(5, 4), groups=4),
    "depthwise, uneven padding": Shape(1, 4, 6, 6, 4, 4, 4, padding=(1, 1), after=(1, 1), groups=4),
}
# Each with the reason it is here; 4, 8 and 16 channels a group.
GROUPED = {
    "two strips of a row": Shape(2, 24, 7, 19, 24, 3, 3, padding=(1, 1), groups=6),
    "8 channels, strided": Shape(1, 32, 9, 11, 16, 3, 3, stride=(2, 2), padding=(1, 1), groups=4),
    "16 channels, taps apart": Shape(1, 48, 8, 9, 24, 3, 2, dilation=(2, 3), padding=(2, 1), groups=3),
    "more taps than are held": Shape(1, 32, 9, 10, 8, 5, 4, padding=(2, 2), groups=2),
    "more filters than a block": Shape(1, 8, 3, 4, 136, 2, 2, groups=2, after=(1, 1)),
    "padding beyond the filter": Shape(1, 16, 3, 4, 8, 2, 2, padding=(3, 4), groups=2),
}

cases = pytest.mark.parametrize("shape", CASES.values(), ids=CASES.keys())


def tiles(runner: NativeKernels, vectors: bool, tile: int, splits: int = 1) -> Any:
    plan = runner.module.Int8ConvPlan()
    plan.tiles = runner.module.Int8Plan(vectors, tile, splits)
    return plan


@pytest.mark.parametrize("zero_point", [0, 5])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@cases
def test_every_shape(runner: NativeKernels, shape: Shape, dtype: torch.dtype, zero_point: int) -> None:
    x, w = operands(shape, dtype)
    e = PLAIN._replace(zero_point_a=-zero_point if dtype is torch.int8 else 40 * zero_point)
    assert torch.equal(run(runner, shape, x, w, e), convolve(shape, x, w, e.zero_point_a))


@pytest.mark.parametrize(
    "name", ["vectors of groups", "first layer", "depthwise", "depthwise, more taps than are held"]
)
def test_any_order_of_threads(runner: NativeKernels, schedules: list[dict[str, Any]], name: str) -> None:
    shape = CASES[name]
    x, w = operands(shape)
    expected = convolve(shape, x, w, -7)
    for schedule in schedules:
        if schedule:
            runner.module.set_schedule(**schedule)
        assert torch.equal(run(runner, shape, x, w, PLAIN._replace(zero_point_a=-7)), expected), schedule


def grouped(runner: NativeKernels) -> Any:
    plan = runner.module.Int8ConvPlan()
    plan.kernel = runner.module.Int8ConvKernel.grouped
    return plan


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize("name", GROUPED)
def test_groups_of_few_channels(
    runner: NativeKernels, schedules: list[dict[str, Any]], name: str, dtype: torch.dtype
) -> None:
    """Exact, without a byte beside the tensors or an order of threads, as the tiles are; and finished as they are."""
    shape = GROUPED[name]
    g = shape.geometry
    x, w = operands(shape, dtype)
    zero_point = -7 if dtype is torch.int8 else 200
    scale = torch.rand(g.k, generator=torch.Generator().manual_seed(5)) / 1000
    e = PLAIN._replace(zero_point_a=zero_point, bias=torch.arange(float(g.k)), scale_b=scale, out_scale=0.7)
    for i, schedule in enumerate(schedules[:2]):
        runner.module.set_schedule(**schedule)
        place: Callable[[Tensor], Tensor] = lambda t, after=bool(i): guarded(t, after, runner.module)  # noqa: E731
        sums, output = (place(nhwc(torch.zeros(g.n, g.k, g.p, g.q, dtype=kind))) for kind in (torch.int32, torch.int8))
        runner.int8_conv(place(x), place(w), sums, g, PLAIN._replace(zero_point_a=zero_point), grouped(runner))
        assert torch.equal(sums, convolve(shape, x, w, zero_point)), schedule
        runner.int8_conv(place(x), place(w), output, g, e, grouped(runner))
        assert torch.equal(output.cpu(), run(runner, shape, x, w, e, tiles(runner, False, 1), torch.int8))


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize(("vectors", "tile"), [(True, 0), (True, 1), (True, 2), (False, 1)])
def test_every_tile(runner: NativeKernels, vectors: bool, tile: int, splits: int) -> None:
    """Several tiles each way, the last not whole, in two groups; the sums of the filters given and computed."""
    shape = Shape(1, 64, 13, 11, 280 if tile == 0 else 140, 3, 3, padding=(1, 1), groups=2)
    x, w = operands(shape, torch.uint8)
    e = PLAIN._replace(zero_point_a=130)
    expected = convolve(shape, x, w, 130)
    plan = tiles(runner, vectors, tile, splits)
    assert torch.equal(run(runner, shape, x, w, e, plan), expected)
    given = e._replace(sums_b=w.int().sum((1, 2, 3), dtype=torch.int32))
    assert torch.equal(run(runner, shape, x, w, given, plan), expected)


@pytest.mark.parametrize("name", ["vectors", "depthwise"])
def test_operands_at_any_address(runner: NativeKernels, name: str) -> None:
    """Copies of 16 bytes, and words of four channels, are for operands that both begin where such may lie."""
    shape = CASES[name]
    x, w = operands(shape)
    expected = convolve(shape, x, w, 5)

    def moved(tensor: Tensor, by: int) -> Tensor:
        memory = torch.zeros(1, tensor.numel() + 16, 1, 1, dtype=tensor.dtype, device=DEVICE)
        flat = nhwc(memory).flatten()[by : by + tensor.numel()]
        n, c, h, v = tensor.shape
        return flat.view(n, h, v, c).permute(0, 3, 1, 2).copy_(tensor)

    for by_x, by_w in ((1, 0), (4, 0), (0, 1), (0, 4)):
        got = run(runner, shape, moved(x, by_x), moved(w, by_w), PLAIN._replace(zero_point_a=5))
        assert torch.equal(got, expected), (by_x, by_w)


@pytest.mark.parametrize("name", ["vectors", "odd channels", "depthwise", "depthwise, odd channels"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8, torch.uint8])
def test_epilogue(runner: NativeKernels, name: str, dtype: torch.dtype) -> None:
    """Scales of each filter, bias, residual, activation and requantization, bit for bit."""
    shape = CASES[name]
    x, w = operands(shape)
    g, generator = shape.geometry, torch.Generator().manual_seed(3)
    e = Int8Epilogue(
        scale_a=0.02,
        scale_b=(torch.rand(g.k, generator=generator) * 0.01).to(DEVICE),
        zero_point_a=-3,
        bias=torch.randn(g.k, generator=generator).to(DEVICE),
        residual=integers(4, (g.n, g.k, g.p, g.q)),
        residual_scale=0.05,
        residual_zero_point=-128,
        out_scale=0.1,
        out_zero_point=4,
    )
    for activation in ("hardswish", "relu6"):  # one output after the other, and rows of four at a time
        asked = e._replace(activation=activation)
        expected = nhwc(torch.zeros(g.n, g.k, g.p, g.q, dtype=dtype, device=DEVICE))
        int8_reference.int8_conv(x, w, expected, g, asked)
        assert torch.equal(run(runner, shape, x, w, asked, dtype=dtype), expected.cpu())


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@cases
def test_nothing_beside_the_tensors_is_touched(runner: NativeKernels, shape: Shape, after: bool) -> None:
    place: Callable[[Tensor], Tensor] = lambda t: guarded(t, after, runner.module)  # noqa: E731
    g = shape.geometry
    x, w = operands(shape)
    output = place(nhwc(torch.zeros(g.n, g.k, g.p, g.q, dtype=torch.int8)))
    e = PLAIN._replace(zero_point_a=9, bias=place(torch.zeros(g.k)), scale_b=place(torch.full((g.k,), 1e-3)))
    runner.int8_conv(place(x), place(w), output, g, e)
    expected = torch.zeros(g.n, g.k, g.p, g.q, dtype=torch.int8)
    int8_reference.finish(convolve(shape, x, w, 9).movedim(1, -1), expected.movedim(1, -1), e)
    assert torch.equal(output, expected)


def test_selection(runner: NativeKernels) -> None:
    def chosen(shape: Shape, aligned: bool = True) -> str:
        geometry = runner.module.ConvGeometry(*shape.geometry)
        return repr(runner.module.int8_conv_plan(geometry, False, aligned, runner.module.gpu_named("a100")))

    assert chosen(Shape(64, 256, 56, 56, 256, 3, 3, padding=(1, 1))) == "vectors 128x128, splits 1"
    assert chosen(Shape(64, 64, 112, 112, 32, 3, 3, padding=(1, 1))) == "vectors 128x32, splits 1"
    assert chosen(Shape(1, 512, 7, 7, 512, 3, 3, padding=(1, 1))).startswith("vectors 64x64, splits ")
    assert chosen(Shape(8, 3, 224, 224, 64, 7, 7, stride=(2, 2))) == "words 64x64, splits 1"
    assert chosen(CASES["vectors"], aligned=False).startswith("words 64x64")
    assert chosen(CASES["depthwise"]) == "depthwise"
    assert chosen(CASES["one channel"]).startswith("words 64x64")
    resnext = Shape(32, 128, 56, 56, 128, 3, 3, padding=(1, 1), groups=32)
    assert chosen(resnext) == "grouped" and chosen(resnext, aligned=False).startswith("words 64x64")
    assert chosen(resnext._replace(c=256, k=256, h=28, w=28)) == "grouped"
    assert chosen(resnext._replace(c=1024, k=1024, h=7, w=7)) != "grouped"


def test_a_plan_that_cannot_serve_is_refused(runner: NativeKernels) -> None:
    shape = CASES["odd channels"]
    with pytest.raises(ValueError, match="not contiguous"):
        run(runner, shape, *operands(shape), plan=tiles(runner, True, 1))
    plan = runner.module.Int8ConvPlan()
    plan.kernel = runner.module.Int8ConvKernel.depthwise
    with pytest.raises(ValueError, match="more than one channel"):
        run(runner, shape, *operands(shape), plan=plan)
    with pytest.raises(ValueError, match="other than 4, 8 or 16 channels"):
        run(runner, shape, *operands(shape), plan=grouped(runner))
    with pytest.raises(ValueError, match="filters are no multiple of four"):
        run(runner, CASES["words of groups"], *operands(CASES["words of groups"]), plan=grouped(runner))
    x, w = operands(GROUPED["8 channels, strided"])
    memory = torch.zeros(x.numel() + 20, dtype=torch.int8)[4:]
    odd = memory[: x.numel()].view(x.movedim(1, -1).shape).movedim(-1, 1).copy_(x)
    with pytest.raises(ValueError, match="begin at multiples of 16 bytes"):
        run(runner, GROUPED["8 channels, strided"], odd, w, plan=grouped(runner))


def test_pixels_far_apart(runner: NativeKernels) -> None:
    """A window that starts far before the image: places are not clamped but left out."""
    shape = Shape(1, 16, 4, 4, 8, 1, 1, stride=(40, 40), padding=(80, 40))
    x, w = operands(shape)
    assert shape.geometry.p * shape.geometry.q > 1
    assert torch.equal(run(runner, shape, x, w, PLAIN._replace(zero_point_a=1)), convolve(shape, x, w, 1))
