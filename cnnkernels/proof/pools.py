"""Trials of the pools: values, places and gradients, in both layouts; NaN is the largest of its window."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..certified.families import Family
from ..dtypes import PRODUCTS
from ..geometry import Layout, argmax_dtype
from ..native.pool import limited
from ..testing.cases import MAX_POOL2D, PoolCase
from ..testing.numerics import small_integers
from .guarded import Guarded
from .trial import Operands, Results, Trial

CASES: tuple[PoolCase, ...] = MAX_POOL2D
# Means whose divisors are powers of two: exact in every type.
AVERAGES: tuple[PoolCase, ...] = (
    *(case for case in MAX_POOL2D if case.kernel in ((1, 1), (2, 2)) and case.dilation == (1, 1)),
    PoolCase("four by four", 2, 16, 8, 12, (4, 4), (2, 4)),
    PoolCase("one bin is the plane", 2, 40, 8, 8, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("a plane in parts", 1, 8, 64, 64, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("a plane of three channels in parts", 1, 3, 64, 64, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("a plane of 16 channels in parts", 1, 16, 64, 64, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("bins side by side", 2, 16, 12, 8, (1, 1), (1, 1), bins=(6, 2)),
    PoolCase("a bin a pixel", 1, 3, 5, 7, (1, 1), (1, 1), bins=(5, 7)),
)


# What picks a kernel beside these: a window with kernels of its own or any other, channels that vectors divide or not;
# rows and columns that leave an odd number, which no vector divides.
WINDOWS: tuple[PoolCase, ...] = tuple(
    PoolCase(
        f"{k}x{k} stride {s}, {channels} channels", 1, channels, size, size, (k, k), (s, s), (pad,) * 2, (step,) * 2
    )
    for (k, s, pad, step), size in (((3, 2, 1, 1), 5), ((2, 2, 0, 1), 7), ((4, 1, 2, 2), 5))
    for channels in (16, 3)
)


class How(NamedTuple):
    """The type of a place in its window, None for the smallest that is enough; as for more than 2^31 elements?"""

    places: torch.dtype | None = None
    in_64_bits: bool = False

    def __str__(self) -> str:
        of = f", places of {self.places.itemsize} bytes" if self.places is not None else ""
        return of + ", in 64 bits" * self.in_64_bits

    def kernels(self, given: Any, shape: Sequence[int], layout: Layout) -> Any:
        """Where a few rows are more than 32 bits may count."""
        if not self.in_64_bits:
            return given
        most = 2 * shape[3] * (shape[1] if layout is Layout.NHWC else 1)
        limit = functools.partial(limited, largest_index=most)
        return given.changed(limit) if isinstance(given, Guarded) else limit(given)


# Beside what selection takes: places of every type, and 64 bits.
EVERY = tuple(How(places, wide) for places in (torch.uint8, torch.uint16, torch.int32) for wide in (False, True))


@functools.cache
def _data(case: PoolCase, nan: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, y, places, dy and dx in fp64."""
    x = small_integers(case.input_shape, torch.float64, seed=1)
    if nan:
        x[0, :, case.h // 2, case.w // 2] = math.nan
    how = case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode
    y, places = F.max_pool2d(x, *how, return_indices=True)
    dy = small_integers(case.output_shape, torch.float64, seed=2)
    dx = torch.zeros_like(x).flatten(2).scatter_add(2, places.flatten(2), dy.flatten(2)).view_as(x)
    return x, y, places, dy, dx


def _max(
    direction: str, case: PoolCase, dtype: torch.dtype, layout: Layout, nan: bool = False, how: How | None = None
) -> Trial:
    g, how = case.geometry, how or How()

    def call(given: Any, device: str) -> Results:
        x, y, places, dy, dx = _data(case, nan)
        put, kernels = Operands(device, dtype, layout), how.kernels(given, case.input_shape, layout)
        found, argmax = put.empty(case.output_shape), put.empty(case.output_shape, how.places or argmax_dtype(g.r, g.s))
        kernels.max_pool_forward(put.put(x), found, argmax, g, layout)
        where = put.empty(case.output_shape, torch.int64)
        kernels.max_pool_indices(argmax, where, g, layout)
        if direction == "max_forward":
            yield from ((found, y), (where, places))
            return
        gathered, spread = put.empty(case.output_shape), put.empty(case.input_shape)
        kernels.max_pool_gather(put.put(x), argmax, gathered, g, layout)
        kernels.max_pool_backward(put.put(dy), argmax, spread, g, layout)
        yield from ((gathered, y), (spread, dx))

    return Trial(f"{case.reason}, {layout.name.lower()}{', NaN' * nan}{how}", call, anywhere=how == How())


def _unpool(direction: str, case: PoolCase, dtype: torch.dtype, layout: Layout, how: How | None = None) -> Trial:
    how = how or How()

    def call(given: Any, device: str) -> Results:
        x, y, places, _, _ = _data(case, False)
        put, kernels = Operands(device, dtype, layout), how.kernels(given, case.input_shape, layout)
        indices = put.put(places, torch.int64)
        if direction == "unpool_forward":
            made = put.empty(case.input_shape)
            winner = put.put(torch.zeros(case.input_shape), torch.int32)
            kernels.max_unpool_forward(put.put(y), indices, winner, made, layout)
            # Windows that overlap name a place several times, always with the same value.
            yield made, torch.zeros_like(x).flatten(2).scatter(2, places.flatten(2), y.flatten(2)).view_as(x)
        else:
            made = put.empty(case.output_shape)
            kernels.max_unpool_backward(put.put(x), indices, made, layout)
            yield made, y

    return Trial(f"{case.reason}, {layout.name.lower()}{how}", call, anywhere=how == How())


def _average(direction: str, case: PoolCase, dtype: torch.dtype, layout: Layout, how: How | None = None) -> Trial:
    how = how or How()

    def call(given: Any, device: str) -> Results:
        put, g, kernels = Operands(device, dtype, layout), case.geometry, how.kernels(given, case.input_shape, layout)
        x = small_integers(case.input_shape, torch.float64, seed=5).requires_grad_()
        rest: tuple[Any, ...] = ()
        if case.bins is not None:
            y, name = F.adaptive_avg_pool2d(x, case.bins), "adaptive_avg_pool"
        else:
            y = F.avg_pool2d(x, case.kernel, case.stride, case.padding, case.ceil_mode, divisor_override=4)
            name, rest = "avg_pool", (True, 4)
        dy = 4 * small_integers(case.output_shape, torch.float64, seed=6, bound=1)
        dx = torch.autograd.grad(y, x, dy)[0]
        given, expected = (x.detach(), y.detach()) if direction == "avg_forward" else (dy, dx)
        made = put.empty(tuple(expected.shape))
        getattr(kernels, f"{name}_{direction.removeprefix('avg_')}")(put.put(given), made, g, layout, *rest)
        yield made, expected

    return Trial(f"{case.reason}, {layout.name.lower()}{how}", call, anywhere=how == How())


def trials(family: Family) -> Iterator[Trial]:
    dtype, wide = PRODUCTS[family.element][0], How(in_64_bits=True)
    dictated = family.backend == "cuda"  # Triton compiles what a problem asks for
    for layout in Layout:
        if family.direction.startswith("max"):
            yield from (_max(family.direction, case, dtype, layout) for case in CASES)
            yield from (_max(family.direction, case, dtype, layout, nan=True) for case in CASES[1:3])
            for case, how in itertools.product(WINDOWS, EVERY if dictated else ()):
                yield _max(family.direction, case, dtype, layout, how=how)
        elif family.direction.startswith("unpool"):
            yield from (_unpool(family.direction, case, dtype, layout) for case in CASES)
            yield from (_unpool(family.direction, case, dtype, layout, wide) for case in WINDOWS if dictated)
        else:
            yield from (_average(family.direction, case, dtype, layout) for case in AVERAGES)
            yield from (_average(family.direction, case, dtype, layout, wide) for case in AVERAGES if dictated)
