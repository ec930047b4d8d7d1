"""avg_pool2d's and adaptive_avg_pool2d's kernels: bits of the loops, corners of memory, orders. Every backend runs the
same bodies."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.dtypes import FLOATING
from cnnkernels.geometry import Axis, Layout, PoolGeometry, pool_output_size
from cnnkernels.testing.numerics import assert_within, rounding_bound, small_integers
from helpers.pool import dense, limited, unwritten
from oracles import average

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
dtypes = pytest.mark.parametrize("dtype", FLOATING.values(), ids=FLOATING.keys())
Pair = tuple[int, int]


class Pooling(NamedTuple):
    """A call of avg_pool2d, or of adaptive_avg_pool2d where `bins` are given."""

    shape: tuple[int, int, int, int]
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    bins: Pair | None = None

    @property
    def geometry(self) -> PoolGeometry:
        sizes = self.shape[2:]
        if self.bins is not None:
            return PoolGeometry.of_axes(
                *self.shape[:2], [Axis(*each) for each in zip(sizes, (1, 1), self.bins, strict=True)]
            )
        each = zip(sizes, self.kernel, self.stride, self.padding, strict=True)
        axes = [Axis(n, k, pool_output_size(n, k, s, p, 1, self.ceil_mode), s, p) for n, k, s, p in each]
        return PoolGeometry.of_axes(*self.shape[:2], axes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        g = self.geometry
        return (g.n, g.c, g.p, g.q)

    @property
    def name(self) -> str:
        return "avg_pool" if self.bins is None else "adaptive_avg_pool"

    @property
    def rest(self) -> tuple[Any, ...]:
        """What kernels take beside the geometry."""
        return (self.count_include_pad, self.divisor_override) if self.bins is None else ()

    def averages(self) -> tuple[list[average.Average], list[average.Average], Any, bool]:
        """Rows, columns, their divisors and whether all are the same, by the oracle."""
        if self.bins is not None:
            rows, columns = (average.bins(n, count) for n, count in zip(self.shape[2:], self.bins, strict=True))
            same = all(n % count == 0 for n, count in zip(self.shape[2:], self.bins, strict=True))
            return rows, columns, average.divisors(rows, columns), same
        each = zip(self.shape[2:], self.kernel, self.stride, self.padding, strict=True)
        rows, columns = (average.windows(*one, self.ceil_mode, self.count_include_pad) for one in each)
        by = average.divisors(rows, columns, self.divisor_override)
        return (
            rows,
            columns,
            by,
            self.divisor_override is not None or bool((by == self.kernel[0] * self.kernel[1]).all()),
        )

    def pytorch(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, *self[1:7]) if self.bins is None else F.adaptive_avg_pool2d(x, self.bins)


def run(kernels: Any, pooling: Pooling, x: Tensor, layout: Layout) -> Tensor:
    y = unwritten(pooling.output_shape, x.dtype, layout, x.device)
    getattr(kernels, f"{pooling.name}_forward")(x, y, pooling.geometry, layout, *pooling.rest)
    return y


def run_backward(kernels: Any, pooling: Pooling, dy: Tensor, layout: Layout) -> Tensor:
    dx = unwritten(pooling.shape, dy.dtype, layout, dy.device)
    getattr(kernels, f"{pooling.name}_backward")(dy, dx, pooling.geometry, layout, *pooling.rest)
    return dx


def planes(tensor: Tensor) -> Any:
    """[images, rows, columns] in the type that sums are kept in."""
    wide = tensor if tensor.dtype is torch.float64 else tensor.float()
    return wide.flatten(0, 1).numpy()


def random_pooling(draw: random.Random) -> Pooling:
    shape = draw.randint(1, 3), draw.choice([1, 2, 3, 4, 8, 16]), draw.randint(1, 9), draw.randint(1, 9)
    if draw.random() < 0.5:
        return Pooling(shape, bins=(draw.randint(1, 12), draw.randint(2, 12)))
    kernel = draw.randint(1, min(4, shape[2])), draw.randint(1, min(4, shape[3]))
    stride = draw.randint(1, 5), draw.choice([1, 2, 3, 50, 2**31 - 1])
    padding = draw.randint(0, kernel[0] // 2), draw.randint(0, kernel[1] // 2)
    flags = draw.random() < 0.5, draw.random() < 0.5
    return Pooling(shape, kernel, stride, padding, *flags, draw.choice([None, None, None, 7, -3, 2**40]))


@pytest.mark.parametrize("seed", range(12))
def test_random_geometry(kernels, device, seed: int) -> None:
    """Every bit of the loops, forward and backward."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    for _ in range(20):
        pooling = random_pooling(draw)
        dtype, layout = draw.choice(list(FLOATING.values())), draw.choice(list(Layout))
        what = f"{pooling} {dtype} {layout.name}"
        rows, columns, by, same = pooling.averages()
        x = torch.randn(pooling.shape, generator=generator).to(dtype)
        expected = torch.from_numpy(average.forward(planes(x), rows, columns, by)).to(dtype)
        y = run(kernels, pooling, dense(x, layout, device), layout)
        assert torch.equal(y.cpu(), expected.view(pooling.output_shape)), what

        dy = torch.randn(pooling.output_shape, generator=generator).to(dtype)
        of_input = average.backward(planes(dy), rows, columns, by, pooling.shape[2:], same)
        dx = run_backward(kernels, pooling, dense(dy, layout, device), layout)
        assert torch.equal(dx.cpu(), torch.from_numpy(of_input).to(dtype).view(pooling.shape)), what


def test_the_loops_are_pytorchs() -> None:
    """In fp64, within what the order of sums and divisions may change; PyTorch divides by rows, then by columns."""
    draw = random.Random(0)
    for _ in range(100):
        pooling = random_pooling(draw)
        rows, columns, by, same = pooling.averages()

        def both(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
            ours = average.forward(planes(x), rows, columns, by)  # noqa: B023
            of_input = average.backward(planes(dy), rows, columns, by, pooling.shape[2:], same)  # noqa: B023
            return torch.from_numpy(ours).view(dy.shape), torch.from_numpy(of_input).view(x.shape)

        x = small_integers(pooling.shape, torch.float64, 1).requires_grad_()
        dy = small_integers(pooling.output_shape, torch.float64, 2)
        y = pooling.pytorch(x)
        theirs = y.detach(), torch.autograd.grad(y, x, dy)[0]
        for mine, other, magnitude in zip(both(x.detach(), dy), theirs, both(x.detach().abs(), dy.abs()), strict=True):
            bound = rounding_bound(other, other, 144, magnitude.abs(), torch.float64)
            assert_within(mine, other, 2 * bound, str(pooling))


SCHEDULE_CASES = {
    "3x3": Pooling((7, 8, 9, 10), (3, 3), (2, 2), (1, 1)),
    "uneven": Pooling((6, 5, 7, 6), (2, 3), (1, 2), (1, 0), True, False),
    "bins": Pooling((5, 16, 9, 6), bins=(4, 3)),
    "more bins than pixels": Pooling((4, 3, 3, 5), bins=(7, 5)),
    "global": Pooling((5, 16, 9, 6), bins=(1, 1)),
}
some = pytest.mark.parametrize("pooling", SCHEDULE_CASES.values(), ids=SCHEDULE_CASES)


@layouts
@some
@pytest.mark.parametrize("wide", [False, True], ids=["slices", "64-bit"])
def test_slices_and_64_bit_arithmetic_agree(
    kernels, device, monkeypatch, wide: bool, pooling: Pooling, layout: Layout
) -> None:
    """What serves more than 2^31 elements, on few: slices of two images, and 64-bit offsets in slices of two rows."""
    generator = torch.Generator().manual_seed(9)
    x = dense(torch.randn(pooling.shape, generator=generator), layout, device)
    y = run(kernels, pooling, x, layout)
    dy = dense(torch.randn(y.shape, generator=generator), layout, device)
    dx = run_backward(kernels, pooling, dy, layout)
    channels = pooling.shape[1] if layout is Layout.NHWC else 1
    row, image = channels * max(x.shape[3], y.shape[3]), channels * max(x[0, 0].numel(), y[0, 0].numel())
    with monkeypatch.context() as patch:
        others = limited(kernels, 2 * row if wide else 2 * image, patch)
        assert torch.equal(run(others, pooling, x, layout), y)
        assert torch.equal(run_backward(others, pooling, dy, layout), dx)


def test_bins_whose_products_pass_32_bits(kernels, device) -> None:
    """70001 rows times 65000 bins is beyond 2^32."""
    size, bins = 70001, 65000
    pooling = Pooling((1, 1, size, 1), bins=(bins, 1))
    x = small_integers(pooling.shape, torch.float32, 1).to(device)
    y = run(kernels, pooling, x, Layout.NCHW)
    assert torch.equal(y.cpu(), pooling.pytorch(x.cpu()))
    dy = small_integers(pooling.output_shape, torch.float32, 2)
    begin = torch.arange(bins) * size // bins
    length = -(-torch.arange(1, bins + 1) * size // bins) - begin
    expected = torch.zeros(size)
    for k in range(int(length.max())):
        of_bin = torch.where(k < length, dy.flatten() / length, 0.0)
        expected.index_add_(0, (begin + k).clamp(max=size - 1), of_bin)
    assert torch.equal(run_backward(kernels, pooling, dy.to(device), Layout.NCHW).cpu().flatten(), expected)


@layouts
@dtypes
@some
def test_misaligned_tensors(kernels, device, pooling: Pooling, dtype: torch.dtype, layout: Layout) -> None:
    """Dense tensors that start one element after an aligned address: the same bits."""

    def shifted(t: Tensor) -> Tensor:
        memory = torch.empty(t.numel() + 1, dtype=t.dtype, device=device)
        return memory.as_strided(t.shape, t.stride(), 1).copy_(t)

    generator = torch.Generator().manual_seed(3)
    x = dense(torch.randn(pooling.shape, generator=generator).to(dtype), layout, device)
    y = run(kernels, pooling, x, layout)
    assert torch.equal(run(kernels, pooling, shifted(x), layout), y)
    dy = dense(torch.randn(y.shape, generator=generator).to(dtype), layout, device)
    assert torch.equal(run_backward(kernels, pooling, shifted(dy), layout), run_backward(kernels, pooling, dy, layout))


@layouts
@some
def test_a_sample_does_not_depend_on_its_batch(kernels, device, pooling: Pooling, layout: Layout) -> None:
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(pooling.shape, generator=generator)
    dy = torch.randn(pooling.output_shape, generator=generator)
    y = run(kernels, pooling, dense(x, layout, device), layout)
    dx = run_backward(kernels, pooling, dense(dy, layout, device), layout)
    one = pooling._replace(shape=(1, *pooling.shape[1:]))
    for i in range(pooling.shape[0]):
        assert torch.equal(run(kernels, one, dense(x[i : i + 1], layout, device), layout), y[i : i + 1])
        assert torch.equal(run_backward(kernels, one, dense(dy[i : i + 1], layout, device), layout), dx[i : i + 1])


# Of fewer pixels than lanes to a plane cut into parts: by channels.
GLOBAL = {
    "one pixel": (2, 3, 1, 1),
    "fewer pixels than lanes": (2, 16, 3, 5),
    "ResNet's head": (2, 48, 7, 7),
    "odd channels": (1, 37, 13, 11),
    "one channel": (3, 1, 40, 41),
    "a last part of less": (2, 8, 70, 67),
    "parts of parts": (1, 2, 131, 130),
}


@layouts
@dtypes
@pytest.mark.parametrize("shape", GLOBAL.values(), ids=GLOBAL)
def test_global_sums_are_exact(kernels, device, shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> None:
    """Integers, whose sum no order changes, divided as the CPU divides."""
    pooling = Pooling(shape, bins=(1, 1))
    x = small_integers(shape, dtype, 1)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    sums = x.double().sum((2, 3), keepdim=True).to(wide)
    y = run(kernels, pooling, dense(x, layout, device), layout)
    assert torch.equal(y.cpu(), (sums / (shape[2] * shape[3])).to(dtype))


@layouts
@dtypes
def test_global_errs_as_pytorch(kernels, device, dtype: torch.dtype, layout: Layout) -> None:
    pooling = Pooling((2, 16, 70, 67), bins=(1, 1))
    x = torch.randn(pooling.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    truth, theirs = pooling.pytorch(x.double()), pooling.pytorch(x)
    bound = rounding_bound(truth, theirs, 70 * 67, pooling.pytorch(x.double().abs()), dtype)
    assert_within(run(kernels, pooling, dense(x, layout, device), layout).cpu(), truth, bound, f"{dtype} {layout}")


def test_large_sums_of_fp16_do_not_overflow(kernels, device) -> None:
    for pooling in (Pooling((1, 8, 4, 4), (4, 4)), *(Pooling((1, 8, 8, 8), bins=(n, n)) for n in (1, 2))):
        x = torch.full(pooling.shape, 60000.0, dtype=torch.float16, device=device)
        assert (run(kernels, pooling, x, Layout.NCHW) == 60000).all()


@layouts
def test_not_finite(kernels, device, layout: Layout) -> None:
    """A NaN or an infinity stays in its windows, forward and backward."""
    inf, nan = float("inf"), float("nan")
    for pooling in (
        Pooling((1, 8, 6, 6), (3, 3), (2, 2), (1, 1)),
        *(Pooling((1, 8, 6, 6), bins=(n, n)) for n in (1, 4)),
    ):
        for values in ((inf,), (inf, -inf), (nan,)):
            x = torch.ones(pooling.shape)
            dy = torch.ones(pooling.output_shape)
            for i, value in enumerate(values):
                x[..., 1, 1 + i] = value
                dy[..., 0, i % dy.shape[3]] = value
            leaf = x.double().requires_grad_()
            expected = pooling.pytorch(leaf)
            (grad,) = torch.autograd.grad(expected, leaf, dy.double())
            for ours, theirs in (
                (run(kernels, pooling, dense(x, layout, device), layout), expected.detach()),
                (run_backward(kernels, pooling, dense(dy, layout, device), layout), grad),
            ):
                assert torch.equal(ours.cpu().isnan(), theirs.isnan())
                assert torch.equal(ours.cpu().isinf(), theirs.isinf())
