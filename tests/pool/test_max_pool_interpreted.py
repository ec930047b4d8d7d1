"""What only the interpreter can show of max_pool2d in CUDA: no access out of bounds, no schedule that matters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import native
from cnnkernels.dtypes import FLOATING
from cnnkernels.geometry import Axis, Layout, PoolGeometry, argmax_dtype, pool_output_size
from cnnkernels.testing.guarded import guarded
from helpers.pool import dense, unwritten

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
windows = pytest.mark.parametrize(
    "window",
    [((3, 3), (2, 2), (1, 1), (1, 1)), ((2, 4), (1, 3), (1, 2), (2, 1))],
    ids=["3x3", "dilated"],
)


@pytest.fixture(scope="module")
def kernels() -> native.NativeKernels:
    return native.load("interpreter")


def pool(shape: tuple[int, ...], window) -> PoolGeometry:
    p, q = (pool_output_size(shape[2 + i], *(a[i] for a in window), ceil_mode=True) for i in range(2))
    kernel, stride, padding, dilation = window
    axes = zip(shape[2:], kernel, (p, q), stride, padding, dilation, strict=True)
    return PoolGeometry.of_axes(*shape[:2], [Axis(*fields) for fields in axes])


def everything(kernels, shape, window, dtype: torch.dtype, layout: Layout, wrap) -> list[Tensor]:
    """The outputs of all six functions, every tensor passed through `wrap`."""
    g = pool(shape, window)
    small = (g.n, g.c, g.p, g.q)
    generator = torch.Generator().manual_seed(7)

    def data(size: tuple[int, ...]) -> Tensor:
        return wrap(dense(torch.randint(-9, 9, size, generator=generator).to(dtype), layout, "cpu"))

    def output(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return wrap(unwritten(size, dtype, layout, "cpu"))

    x, dy = data(shape), data(small)
    y, argmax, indices = output(small, dtype), output(small, argmax_dtype(g.r, g.s)), output(small, torch.int64)
    dx, gathered, out, back = output(shape, dtype), output(small, dtype), output(shape, dtype), output(small, dtype)
    winner = wrap(dense(torch.zeros(shape, dtype=torch.int32), layout, "cpu"))
    kernels.max_pool_forward(x, y, argmax, g, layout)
    kernels.max_pool_backward(dy, argmax, dx, g, layout)
    kernels.max_pool_gather(x, argmax, gathered, g, layout)
    kernels.max_pool_indices(argmax, indices, g, layout)
    indices[0, 0, 0, 0], indices[0, 0, 0, 1] = -1, g.h * g.w  # outside, on either side
    kernels.max_unpool_forward(dy, indices, winner, out, layout)  # windows that share a winner differ in dy
    kernels.max_unpool_backward(dx, indices, back, layout)
    return [y, argmax, indices, dx, gathered, out, back]


@layouts
@windows
@pytest.mark.parametrize("dtype", FLOATING.values(), ids=FLOATING.keys())
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
def test_no_access_out_of_bounds(
    kernels, window, dtype: torch.dtype, channels: int, after: bool, layout: Layout
) -> None:
    """Every tensor ends, or begins, at an inaccessible page; an access beyond would be a KernelFault."""
    shape = (3, channels, 9, 7)
    results = everything(kernels, shape, window, dtype, layout, lambda t: guarded(t, after))
    expected, _ = F.max_pool2d(
        torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(7)).to(dtype),
        *window,
        ceil_mode=True,
        return_indices=True,
    )
    assert torch.equal(results[0], expected)


@layouts
@windows
@pytest.mark.parametrize("order", ["ordered", "reversed", "random"])
def test_every_schedule_gives_the_same(kernels, window, order: str, layout: Layout) -> None:
    """The order of threads decides nothing, not even which of several duplicates unpooling keeps."""
    before = kernels.module.schedule()
    expected = everything(kernels, (3, 8, 9, 7), window, torch.float32, layout, lambda t: t)
    try:
        for seed in (1, 2):
            kernels.module.set_schedule(order=order, seed=seed)
            results = everything(kernels, (3, 8, 9, 7), window, torch.float32, layout, lambda t: t)
            assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    finally:
        kernels.module.set_schedule(order=before["order"], seed=before["seed"])
