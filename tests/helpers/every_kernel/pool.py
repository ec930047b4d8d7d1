"""The pools' kernels: every type, layout and width of what is kept, by vectors and by elements, and in 64 bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from cnnkernels.dtypes import FLOATING
from cnnkernels.geometry import Axis, Layout, PoolGeometry
from cnnkernels.testing.numerics import small_integers
from helpers.every_kernel import GPUS, Trial, emulated
from helpers.pool import dense, limited, unwritten

# kernel, stride, padding, dilation: those with kernels of their own, and any other; and rows and columns that leave an
# odd number, which no vector divides.
WINDOWS = {(3, 2, 1, 1): 5, (2, 2, 0, 1): 7, (4, 1, 2, 2): 5}


def geometry(shape: tuple[int, ...], window: tuple[int, int, int, int], sizes: tuple[int, ...]) -> PoolGeometry:
    kernel, stride, padding, dilation = window
    axes = [Axis(n, kernel, p, stride, padding, dilation) for n, p in zip(shape[2:], sizes, strict=True)]
    return PoolGeometry.of_axes(*shape[:2], axes)


def kernels(shape: tuple[int, ...], layout: Layout, wide: bool) -> Any:
    """64-bit arithmetic, which more than 2^31 elements need, where a few rows are more than is allowed."""
    if not wide:
        return emulated()
    return limited(emulated(), 2 * shape[3] * (shape[1] if layout is Layout.NHWC else 1), None)  # type: ignore[arg-type]


def maximum(dtype: torch.dtype, places: torch.dtype, layout: Layout, channels: int, wide: bool) -> None:
    for window, size in WINDOWS.items():
        shape = (1, channels, size, size)
        x = small_integers(shape, torch.float64, seed=1)
        y, indices = F.max_pool2d(x, *window, return_indices=True)
        g, k = geometry(shape, window, tuple(y.shape[2:])), kernels(shape, layout, wide)
        given = dense(x.to(dtype), layout, "cpu")
        found = unwritten(tuple(y.shape), dtype, layout, "cpu")
        argmax = unwritten(tuple(y.shape), places, layout, "cpu")
        k.max_pool_forward(given, found, argmax, g, layout)
        assert torch.equal(found, y.to(dtype)), window
        where = unwritten(tuple(y.shape), torch.int64, layout, "cpu")
        k.max_pool_indices(argmax, where, g, layout)
        assert torch.equal(where, indices), window
        gathered = unwritten(tuple(y.shape), dtype, layout, "cpu")
        k.max_pool_gather(given, argmax, gathered, g, layout)
        assert torch.equal(gathered, y.to(dtype)), window
        dy = small_integers(tuple(y.shape), torch.float64, seed=2)
        dx = unwritten(shape, dtype, layout, "cpu")
        k.max_pool_backward(dense(dy.to(dtype), layout, "cpu"), argmax, dx, g, layout)
        true = torch.zeros(shape, dtype=torch.float64).flatten(2).scatter_add(2, indices.flatten(2), dy.flatten(2))
        assert torch.equal(dx, true.view(shape).to(dtype)), window


def forward_alone(dtype: torch.dtype, places: torch.dtype, layout: Layout, channels: int, wide: bool) -> None:
    """The kernels that look at the architecture."""
    for window, size in WINDOWS.items():
        shape = (1, channels, size, size)
        x = small_integers(shape, torch.float64, seed=1)
        y = F.max_pool2d(x, *window)
        found = unwritten(tuple(y.shape), dtype, layout, "cpu")
        argmax = unwritten(tuple(y.shape), places, layout, "cpu")
        g = geometry(shape, window, tuple(y.shape[2:]))
        kernels(shape, layout, wide).max_pool_forward(dense(x.to(dtype), layout, "cpu"), found, argmax, g, layout)
        assert torch.equal(found, y.to(dtype)), window


def unpool(dtype: torch.dtype, layout: Layout, channels: int, wide: bool) -> None:
    shape, size = (1, channels, 3, 5), (5, 9)
    x = small_integers(shape, torch.float64, seed=3)
    places = torch.arange(15).mul(4).remainder(45).expand(1, channels, 15).reshape(shape)
    k = kernels((*shape[:2], *size), layout, wide)
    output, winner = (
        unwritten((*shape[:2], *size), dtype, layout, "cpu"),
        torch.zeros(*shape[:2], *size, dtype=torch.int32),
    )
    indices = dense(places, layout, "cpu")
    k.max_unpool_forward(dense(x.to(dtype), layout, "cpu"), indices, dense(winner, layout, "cpu"), output, layout)
    assert torch.equal(output, F.max_unpool2d(x, places, 2, output_size=size).to(dtype))
    dx = unwritten(shape, dtype, layout, "cpu")
    dy = small_integers((*shape[:2], *size), torch.float64, seed=4)
    k.max_unpool_backward(dense(dy.to(dtype), layout, "cpu"), indices, dx, layout)
    assert torch.equal(dx, dy.flatten(2).gather(2, places.flatten(2)).view(shape).to(dtype))


def average(dtype: torch.dtype, layout: Layout, channels: int, wide: bool, bins: bool) -> None:
    """One element of a window is not zero, and the divisors of a gradient are powers of two: exact."""
    shape = (1, channels, 7, 7)
    x = small_integers(shape, torch.float64, seed=5).requires_grad_()
    y = F.adaptive_avg_pool2d(x, 7) if bins else F.avg_pool2d(x, 2, 1, 0)
    window = (1, 1, 0, 1) if bins else (2, 1, 0, 1)
    g, k, rest = geometry(shape, window, tuple(y.shape[2:])), kernels(shape, layout, wide), () if bins else (True, None)
    name = "adaptive_avg_pool" if bins else "avg_pool"
    found = unwritten(tuple(y.shape), dtype, layout, "cpu")
    getattr(k, f"{name}_forward")(dense(x.detach().to(dtype), layout, "cpu"), found, g, layout, *rest)
    assert torch.equal(found, y.detach().to(dtype))
    dy = small_integers(tuple(y.shape), torch.float64, seed=6)
    dx = unwritten(shape, dtype, layout, "cpu")
    getattr(k, f"{name}_backward")(dense(dy.to(dtype), layout, "cpu"), dx, g, layout, *rest)
    assert torch.equal(dx, torch.autograd.grad(y, x, dy)[0].to(dtype))


def average_of_all(dtype: torch.dtype, channels: int, pixels: tuple[int, int]) -> None:
    shape = (1, channels, *pixels)
    x = small_integers(shape, torch.float64, seed=7)
    y = torch.full((1, channels, 1, 1), float("nan"), dtype=dtype).contiguous(memory_format=torch.channels_last)
    g = geometry(shape, (1, 1, 0, 1), (1, 1))
    emulated().adaptive_avg_pool_forward(dense(x.to(dtype), Layout.NHWC, "cpu"), y, g, Layout.NHWC)
    assert torch.equal(y, x.mean((2, 3), keepdim=True).to(dtype))


def trials(source: str) -> Iterator[Trial]:
    kinds = [
        (dtype, layout, channels, wide)
        for dtype in FLOATING.values()
        for layout in Layout
        for channels in (16, 3)
        for wide in (False, True)
    ]
    every_place = [
        (dtype, places, *rest) for dtype, *rest in kinds for places in (torch.uint8, torch.uint16, torch.int32)
    ]
    if source in ("pool/backward.cu", "pool/gather.cu"):
        yield from (Trial(str(kind), partial(maximum, *kind)) for kind in every_place)
    if source == "pool/forward.cu":
        for gpu in GPUS.values():
            yield from (Trial(f"{kind} on {gpu}", partial(forward_alone, *kind), gpu) for kind in every_place)
    if source == "pool/unpool.cu":
        yield from (Trial(str(kind), partial(unpool, *kind)) for kind in kinds)
    if source in ("pool/avg_forward.cu", "pool/avg_backward.cu"):
        yield from (
            Trial(str((*kind, bins)), partial(average, *kind, bins)) for kind in kinds for bins in (False, True)
        )
    if source == "pool/global.cu":
        for dtype in FLOATING.values():
            for channels in (16, 3):
                for pixels in ((4, 4), (64, 64)):
                    yield Trial(f"{dtype} of {channels} x {pixels}", partial(average_of_all, dtype, channels, pixels))
