"""max_pool2d's kernels in their corners: semantics, geometry, schedules, memory. Every backend runs the same bodies."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.dtypes import FLOATING
from cnnkernels.geometry import Axis, Layout, PoolGeometry, argmax_dtype, pool_output_size
from helpers.pool import dense, limited, unwritten

NAN, INF = math.nan, math.inf

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
dtypes = pytest.mark.parametrize("dtype", FLOATING.values(), ids=FLOATING.keys())


class Window(NamedTuple):
    """PyTorch's arguments of a pool."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def geometry(self, shape: tuple[int, ...]) -> PoolGeometry:
        p, q = (
            pool_output_size(shape[2 + i], self.kernel[i], self.stride[i], self.padding[i], self.dilation[i], self[4])
            for i in range(2)
        )
        axes = zip(shape[2:], self.kernel, (p, q), self.stride, self.padding, self.dilation, strict=True)
        return PoolGeometry.of_axes(*shape[:2], [Axis(*fields) for fields in axes])


def run_forward(kernels, x: Tensor, window: Window, layout: Layout, places: torch.dtype | None = None):
    """Values, places and indices; x is dense in `layout`."""
    g = window.geometry(tuple(x.shape))
    shape = (g.n, g.c, g.p, g.q)
    y = unwritten(shape, x.dtype, layout, x.device)
    argmax = unwritten(shape, places or argmax_dtype(g.r, g.s), layout, x.device)
    indices = unwritten(shape, torch.int64, layout, x.device)
    kernels.max_pool_forward(x, y, argmax, g, layout)
    kernels.max_pool_indices(argmax, indices, g, layout)
    return y, argmax, indices


def run_backward(kernels, dy: Tensor, argmax: Tensor, window: Window, shape: tuple[int, ...], layout: Layout):
    dx = unwritten(shape, dy.dtype, layout, dy.device)
    kernels.max_pool_backward(dy, argmax, dx, window.geometry(shape), layout)
    return dx


def run_gather(kernels, x: Tensor, argmax: Tensor, window: Window, layout: Layout):
    y = unwritten(tuple(argmax.shape), x.dtype, layout, x.device)
    kernels.max_pool_gather(x, argmax, y, window.geometry(tuple(x.shape)), layout)
    return y


def assert_same(actual: Tensor, expected: Tensor, what: str = "") -> None:
    """Equal bits, but for the payload of a NaN."""
    actual, expected = actual.cpu().contiguous(), expected.contiguous()
    assert torch.equal(actual.isnan(), expected.isnan()), what
    numbers = ~expected.isnan()
    assert torch.equal(actual[numbers], expected[numbers]), what
    assert torch.equal(actual[numbers].signbit(), expected[numbers].signbit()), what


def winners(shape: tuple[int, ...], window: Window, indices: Tensor) -> Tensor:
    """indices [n, c, p q], with h * w for a window without a place inside the input: its value is -inf, and PyTorch's
    index names a place outside, or the element of another row that happens to have that number."""
    nothing = F.max_pool2d(torch.zeros(shape), *window).isinf()
    return indices.cpu().masked_fill(nothing, shape[2] * shape[3]).flatten(2)


def routed(dy: Tensor, winner: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The backward by definition, in fp64: each gradient to its window's winner, if it has one."""
    dx = torch.zeros(*shape[:2], shape[2] * shape[3] + 1, dtype=torch.float64)
    dx.scatter_add_(2, winner, dy.cpu().double().flatten(2))
    return dx[:, :, :-1].reshape(shape)


TABLE = {
    "all tied: the first in row-major order": ([[1, 1], [1, 1]], Window((2, 2), (2, 2)), [[1]], [[0]]),
    "tie across rows": ([[0, 3], [3, 0]], Window((2, 2), (2, 2)), [[3]], [[1]]),
    "tie of a later row and column": ([[0, 0, 5], [0, 5, 0]], Window((2, 3), (2, 3)), [[5]], [[2]]),
    "negative zero before zero": ([[-0.0, 0.0]], Window((1, 2), (1, 2)), [[-0.0]], [[0]]),
    "zero before negative zero": ([[0.0, -0.0]], Window((1, 2), (1, 2)), [[0.0]], [[0]]),
    "a NaN beats numbers on both sides": ([[3, NAN, 9]], Window((1, 3), (1, 3)), [[NAN]], [[1]]),
    "the last NaN wins": ([[NAN, 5, NAN, 7]], Window((1, 4), (1, 4)), [[NAN]], [[2]]),
    "the last NaN of several rows": ([[NAN, NAN], [NAN, 1]], Window((2, 2), (2, 2)), [[NAN]], [[2]]),
    "a NaN beats infinity": ([[INF, NAN, INF]], Window((1, 3), (1, 3)), [[NAN]], [[1]]),
    "first of two infinities": ([[1, INF, INF]], Window((1, 3), (1, 3)), [[INF]], [[1]]),
    "minus infinity alone": ([[-INF, -INF], [-INF, -INF]], Window((2, 2), (2, 2)), [[-INF]], [[0]]),
    "minus infinity under padding: the first place inside": (
        [[-INF] * 3] * 3,
        Window((3, 3), (2, 2), (1, 1)),
        [[-INF, -INF], [-INF, -INF]],
        [[0, 1], [3, 4]],
    ),
    "minus infinity before a number": ([[-INF, -7]], Window((1, 2), (1, 2)), [[-7]], [[1]]),
    "the lowest number beats padding": ([[-3, -2], [-1, -4]], Window((3, 3), (2, 2), (1, 1)), [[-1]], [[2]]),
    "a column is left over without ceil_mode": ([[1, 2, 3, 4, 9]], Window((1, 2), (1, 2)), [[2, 4]], [[1, 3]]),
    "ceil_mode keeps a short last window": (
        [[1, 2, 3, 4, 9]],
        Window((1, 2), (1, 2), ceil_mode=True),
        [[2, 4, 9]],
        [[1, 3, 4]],
    ),
    "ceil_mode drops a window that would start in the padding": (
        [[1, 2, 3]],
        Window((1, 2), (1, 2), (0, 1), ceil_mode=True),
        [[1, 3]],
        [[0, 2]],
    ),
    "dilation skips": ([[1, 9, 3, 9, 2]], Window((1, 3), (1, 1), dilation=(1, 2)), [[3]], [[2]]),
    "dilation of rows alone": ([[1, 2], [9, 9], [3, 0]], Window((2, 2), (1, 1), dilation=(2, 1)), [[3]], [[4]]),
    "windows that overlap": ([[1, 5, 2, 4]], Window((1, 3), (1, 1)), [[5, 5]], [[1, 1]]),
    "strides above the window": ([[7, 9, 1, 8]], Window((1, 1), (1, 3)), [[7, 8]], [[0, 3]]),
    "strides of rows and columns differ": (
        [[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]],
        Window((1, 2), (2, 1)),
        [[2, 3, 4], [9, 2, 3]],
        [[1, 2, 3], [8, 10, 11]],
    ),
    "dilation beyond the input": (
        [[1, 2, 3], [4, 5, 6]],
        Window((1, 2), (1, 1), (0, 1), (1, 3)),
        [[3, 1], [6, 4]],
        [[2, 0], [5, 3]],
    ),
    "no place inside": (
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        Window((2, 2), (2, 2), (1, 1), (5, 5), True),
        [[-INF]],
        [[16]],
    ),
    "dilation of INT32_MAX": (
        [[1, 2], [3, 4]],
        Window((1, 1), (1, 1), dilation=(2**31 - 1,) * 2),
        [[1, 2], [3, 4]],
        [[0, 1], [2, 3]],
    ),
    "stride of INT32_MAX": ([[1, 2], [3, 4]], Window((1, 1), (2**31 - 1,) * 2), [[1]], [[0]]),
    "stride and dilation of INT32_MAX": (
        [[1, 2], [3, 4]],
        Window((2, 2), (2**31 - 1,) * 2, (1, 1), (2**31 - 1,) * 2, True),
        [[-INF]],
        [[(2**31 - 2) * 2 + 2**31 - 2]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
@layouts
@dtypes
def test_semantics(kernels, device, case, layout: Layout, dtype: torch.dtype) -> None:
    rows, window, values, places = case
    x = torch.tensor(rows, dtype=torch.float64).to(dtype).expand(2, 16, -1, -1)
    y, _, indices = run_forward(kernels, dense(x, layout, device), window, layout)
    assert_same(y, torch.tensor(values, dtype=dtype).expand(2, 16, -1, -1))
    assert torch.equal(indices.cpu(), torch.tensor(places).expand(2, 16, -1, -1))


def test_the_table_is_pytorchs() -> None:
    for name, (rows, window, values, places) in TABLE.items():
        x = torch.tensor(rows, dtype=torch.float64)[None, None]
        y, indices = F.max_pool2d(x, *window, return_indices=True)
        assert_same(y, torch.tensor(values, dtype=torch.float64)[None, None], name)
        assert indices.tolist() == [[places]], name


def random_case(draw: random.Random) -> tuple[tuple[int, ...], Window]:
    while True:
        kernel, stride, dilation = (tuple(draw.randint(1, m) for _ in range(2)) for m in (4, 5, 4))
        if draw.random() < 0.1:
            stride = (stride[0], draw.choice([50, 2**31 - 1]))
        if draw.random() < 0.1:
            dilation = (draw.choice([6, 50]), dilation[1])
        padding = tuple(draw.randint(0, k // 2) for k in kernel)
        shape = (draw.randint(1, 6), draw.choice([1, 2, 3, 4, 8, 16]), draw.randint(1, 9), draw.randint(1, 9))
        window = Window(kernel, stride, padding, dilation, draw.random() < 0.5)
        g = window.geometry(shape)
        if g.p > 0 and g.q > 0:
            return shape, window


def awkward(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Few values, so many ties; some zeros negative, some infinite, some NaN."""
    x = torch.randint(-2, 3, shape, generator=generator).double()
    special = torch.rand(shape, generator=generator)
    for bound, value in ((0.35, -INF), (0.12, -0.0), (0.06, INF), (0.03, NAN)):
        x[special < bound] = value
    return x.to(dtype)


@pytest.mark.parametrize("seed", range(12))
def test_random_geometry(kernels, device, seed: int) -> None:
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        shape, window = random_case(draw)
        dtype, layout = draw.choice(list(FLOATING.values())), draw.choice(list(Layout))
        what = f"{shape} {window} {dtype} {layout.name}"
        x = awkward(shape, dtype, generator)
        expected, expected_indices = F.max_pool2d(x, *window, return_indices=True)
        y, argmax, indices = run_forward(kernels, dense(x, layout, device), window, layout)
        assert_same(y, expected, what)
        assert torch.equal(indices.cpu(), expected_indices), what

        winner = winners(shape, window, expected_indices)
        dy = torch.randint(-4, 5, expected.shape, generator=generator).to(dtype)
        dx = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
        assert torch.equal(dx.cpu().double(), routed(dy, winner, shape)), what

        probe = torch.randint(1, 9, shape, generator=generator).to(dtype)
        got = run_gather(kernels, dense(probe, layout, device), argmax, window, layout)
        pixels = F.pad(probe.flatten(2), (0, 1))  # windows without a place inside gather the 0 at the end
        assert torch.equal(got.cpu(), pixels.gather(2, winner).view(expected.shape)), what


@layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_every_16_bit_value_is_compared_exactly(kernels, device, dtype: torch.dtype, layout: Layout) -> None:
    """All 65536 bit patterns, each against another one: subnormals, infinities and NaNs of either sign."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    other = patterns[torch.randperm(2**16, generator=torch.Generator().manual_seed(0))]
    x = torch.stack([patterns, other], dim=-1).view(dtype).view(1, 16, 4096, 2)
    expected, expected_indices = F.max_pool2d(x, (1, 2), return_indices=True)
    y, _, indices = run_forward(kernels, dense(x, layout, device), Window((1, 2), (1, 2)), layout)
    assert_same(y, expected)
    assert torch.equal(indices.cpu(), expected_indices)


def test_gradient_goes_to_the_winner_only(kernels, device) -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    _, argmax, _ = run_forward(kernels, x.to(device), Window((2, 2), (2, 2)), Layout.NCHW)
    dy = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], device=device)
    dx = run_backward(kernels, dy, argmax, Window((2, 2), (2, 2)), (1, 1, 4, 4), Layout.NCHW)
    assert dx.tolist() == [[[[0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 4]]]]


@layouts
def test_backward_sums_in_ascending_order_of_windows(kernels, device, layout: Layout) -> None:
    """fp32: (1 + 2^24) - 2^24 is 0, 1 + (2^24 - 2^24) is 1: the order shows."""
    big = 2.0**24
    window, shape = Window((1, 3), (1, 1)), (1, 8, 1, 5)
    x = torch.tensor([0.0, 0, 9, 0, 0]).expand(shape)  # the middle wins all three windows
    _, argmax, _ = run_forward(kernels, dense(x, layout, device), window, layout)
    dy = torch.tensor([1.0, big, -big]).expand(1, 8, 1, 3)
    dx = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
    assert dx[0, :, 0].tolist() == [[0, 0, 0, 0, 0]] * 8
    dy = torch.tensor([big, -big, 1.0]).expand(1, 8, 1, 3)
    dx = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
    assert dx[0, :, 0].tolist() == [[0, 0, 1, 0, 0]] * 8


@layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_backward_of_16_bits_rounds_once(kernels, device, layout: Layout, dtype: torch.dtype) -> None:
    """Nine gradients of 1 + one unit in the last place, summed in fp32."""
    window, shape = Window((3, 3), (1, 1)), (1, 8, 5, 5)
    x = torch.zeros(shape)
    x[:, :, 2, 2] = 1
    _, argmax, _ = run_forward(kernels, dense(x.to(dtype), layout, device), window, layout)
    dy = torch.full((1, 8, 3, 3), 1 + torch.finfo(dtype).eps, dtype=dtype)
    dx = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
    expected = torch.tensor(9 * (1 + torch.finfo(dtype).eps), dtype=torch.float64).to(dtype)
    assert torch.equal(dx[0, :, 2, 2].cpu(), expected.expand(8))


@layouts
@pytest.mark.parametrize(
    "kernel, places",
    [((15, 17), torch.uint8), ((16, 16), torch.uint16), ((65535, 1), torch.uint16), ((140000, 1), torch.int32)],
    ids=["255", "256", "65535", "140000"],
)
def test_large_windows(kernels, device, kernel: tuple[int, int], places: torch.dtype, layout: Layout) -> None:
    """Half of a window stands in the padding, so that its few places inside have large numbers."""
    assert argmax_dtype(*kernel) is places
    half = (kernel[0] // 2, kernel[1] // 2)
    window = Window(kernel, (2 * kernel[0], 2 * kernel[1]), half, ceil_mode=True)
    shape = (2, 16, min(8, kernel[0] - half[0]), kernel[1] - half[1])
    x = torch.zeros(shape)
    x[0, :, -1, -1] = 1
    x[1, :, 1, 0] = 1
    expected, expected_indices = F.max_pool2d(x, *window, return_indices=True)
    y, argmax, indices = run_forward(kernels, dense(x, layout, device), window, layout)
    assert torch.equal(y.cpu(), expected)
    assert torch.equal(indices.cpu(), expected_indices)
    assert int(argmax[0, 0, 0, 0]) == (half[0] + shape[2] - 1) * kernel[1] + half[1] + shape[3] - 1
    dy = torch.full(expected.shape, 3.0)
    dx = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
    assert torch.equal(dx.cpu().double(), routed(dy, expected_indices.flatten(2), shape))
    assert torch.equal(run_gather(kernels, dense(x, layout, device), argmax, window, layout), y)


@layouts
@pytest.mark.parametrize("places", [torch.uint8, torch.uint16, torch.int32], ids=["uint8", "uint16", "int32"])
@pytest.mark.parametrize("channels", [8, 3])
def test_every_argmax_width_agrees(kernels, device, channels: int, places: torch.dtype, layout: Layout) -> None:
    window, shape = Window((3, 3), (2, 2), (1, 1)), (3, channels, 7, 9)
    generator = torch.Generator().manual_seed(5)
    x = dense(awkward(shape, torch.float16, generator), layout, device)
    _, expected, _ = run_forward(kernels, x, window, layout)
    y, argmax, _ = run_forward(kernels, x, window, layout, places)
    assert torch.equal(argmax.to(torch.int64), expected.to(torch.int64))
    dy = dense(torch.randint(-4, 5, y.shape, generator=generator).to(torch.float16), layout, device)
    dx = run_backward(kernels, dy, argmax, window, shape, layout)
    assert torch.equal(dx, run_backward(kernels, dy, expected, window, shape, layout))
    assert torch.equal(run_gather(kernels, x, argmax, window, layout).nan_to_num(3), y.nan_to_num(3))


SCHEDULE_CASES = [
    ((7, 8, 9, 10), Window((3, 3), (2, 2), (1, 1))),
    ((6, 5, 7, 6), Window((2, 3), (1, 2), (1, 0), (2, 1), True)),
    ((5, 16, 6, 6), Window((2, 2), (2, 2))),
    ((3, 8, 12, 9), Window((6, 6), (3, 2), (3, 1), (1, 1))),
]


@layouts
@pytest.mark.parametrize("shape, window", SCHEDULE_CASES, ids=["3x3", "uneven", "2x2", "6x6"])
@pytest.mark.parametrize("wide", [False, True], ids=["slices", "64-bit"])
def test_slices_and_64_bit_arithmetic_agree(
    kernels, device, monkeypatch, wide: bool, shape: tuple[int, ...], window: Window, layout: Layout
) -> None:
    """What serves more than 2^31 elements, on few: slices of two images, and 64-bit offsets in slices of two rows."""
    generator = torch.Generator().manual_seed(9)
    x = dense(awkward(shape, torch.float32, generator), layout, device)
    y, argmax, indices = run_forward(kernels, x, window, layout)
    dy = dense(torch.randint(-4, 5, y.shape, generator=generator).float(), layout, device)
    dx = run_backward(kernels, dy, argmax, window, shape, layout)
    gathered = run_gather(kernels, x, argmax, window, layout)

    channels = shape[1] if layout is Layout.NHWC else 1
    row, image = channels * max(shape[3], y.shape[3]), channels * max(x[0, 0].numel(), y[0, 0].numel())
    with monkeypatch.context() as patch:
        others = limited(kernels, 2 * row if wide else 2 * image, patch)
        results = run_forward(others, x, window, layout)
        assert_same(results[0], y.cpu())
        assert torch.equal(results[1], argmax)
        assert torch.equal(results[2], indices)
        assert torch.equal(run_backward(others, dy, argmax, window, shape, layout), dx)
        assert_same(run_gather(others, x, argmax, window, layout), gathered.cpu())


@layouts
@dtypes
def test_misaligned_tensors(kernels, device, dtype: torch.dtype, layout: Layout) -> None:
    """Dense tensors that start one element after an aligned address."""
    window, shape = Window((3, 3), (2, 2), (1, 1)), (2, 16, 6, 7)

    def shifted(t: Tensor) -> Tensor:
        memory = torch.empty(t.numel() + 1, dtype=t.dtype, device=device)
        out = memory.as_strided(t.shape, t.stride(), 1)
        return out.copy_(t)

    x = dense(awkward(shape, dtype, torch.Generator().manual_seed(3)), layout, device)
    g = window.geometry(shape)
    expected, places, _ = run_forward(kernels, x, window, layout)
    y, argmax = shifted(torch.zeros_like(expected)), shifted(torch.zeros_like(places))
    kernels.max_pool_forward(shifted(x), y, argmax, g, layout)
    assert_same(y, expected.cpu())
    assert torch.equal(argmax, places)
    dy = dense(torch.ones(expected.shape, dtype=dtype), layout, device)
    dx = shifted(torch.zeros_like(x))
    kernels.max_pool_backward(shifted(dy), argmax, dx, g, layout)
    assert torch.equal(dx, run_backward(kernels, dy, places, window, shape, layout))


@layouts
@pytest.mark.parametrize("channels", [3, 8])
def test_a_sample_does_not_depend_on_its_batch(kernels, device, channels: int, layout: Layout) -> None:
    window, shape = Window((3, 3), (1, 1), (1, 1)), (5, channels, 6, 5)
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(shape, generator=generator).half()
    dy = torch.randn(shape, generator=generator).half()
    y, argmax, _ = run_forward(kernels, dense(x, layout, device), window, layout)
    dx = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
    again = run_backward(kernels, dense(dy, layout, device), argmax, window, shape, layout)
    assert torch.equal(dx, again)
    for i in range(5):
        one, place, _ = run_forward(kernels, dense(x[i : i + 1], layout, device), window, layout)
        assert torch.equal(one, y[i : i + 1])
        assert torch.equal(place, argmax[i : i + 1])
        alone = run_backward(kernels, dense(dy[i : i + 1], layout, device), place, window, (1, *shape[1:]), layout)
        assert torch.equal(alone, dx[i : i + 1])
