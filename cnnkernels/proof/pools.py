"""Trials of the pools: values, places and gradients, in both layouts; NaN is the largest of its window."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..certified.families import Family
from ..dtypes import PRODUCTS
from ..geometry import Layout, argmax_dtype
from ..testing.cases import MAX_POOL2D, PoolCase
from ..testing.numerics import small_integers
from .trial import Operands, Results, Trial

CASES: tuple[PoolCase, ...] = MAX_POOL2D
# Means whose divisors are powers of two: exact in every type.
AVERAGES: tuple[PoolCase, ...] = (
    *(case for case in MAX_POOL2D if case.kernel in ((1, 1), (2, 2)) and case.dilation == (1, 1)),
    PoolCase("four by four", 2, 16, 8, 12, (4, 4), (2, 4)),
    PoolCase("one bin is the plane", 2, 40, 8, 8, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("a plane in parts", 1, 8, 64, 64, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("bins side by side", 2, 16, 12, 8, (1, 1), (1, 1), bins=(6, 2)),
    PoolCase("a bin a pixel", 1, 3, 5, 7, (1, 1), (1, 1), bins=(5, 7)),
)


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


def _max(direction: str, case: PoolCase, dtype: torch.dtype, layout: Layout, nan: bool) -> Trial:
    g = case.geometry

    def call(kernels: Any, device: str) -> Results:
        x, y, places, dy, dx = _data(case, nan)
        put = Operands(device, dtype, layout)
        found, argmax = put.empty(case.output_shape), put.empty(case.output_shape, argmax_dtype(g.r, g.s))
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

    return Trial(f"{case.reason}, {layout.name.lower()}{', NaN' * nan}", call)


def _unpool(direction: str, case: PoolCase, dtype: torch.dtype, layout: Layout) -> Trial:
    def call(kernels: Any, device: str) -> Results:
        x, y, places, _, _ = _data(case, False)
        put = Operands(device, dtype, layout)
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

    return Trial(f"{case.reason}, {layout.name.lower()}", call)


def _average(direction: str, case: PoolCase, dtype: torch.dtype, layout: Layout) -> Trial:
    def call(kernels: Any, device: str) -> Results:
        put, g = Operands(device, dtype, layout), case.geometry
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

    return Trial(f"{case.reason}, {layout.name.lower()}", call)


def trials(family: Family) -> Iterator[Trial]:
    dtype = PRODUCTS[family.element][0]
    for layout in Layout:
        if family.direction.startswith("max"):
            yield from (_max(family.direction, case, dtype, layout, False) for case in CASES)
            yield from (_max(family.direction, case, dtype, layout, True) for case in CASES[1:3])
        elif family.direction.startswith("unpool"):
            yield from (_unpool(family.direction, case, dtype, layout) for case in CASES)
        else:
            yield from (_average(family.direction, case, dtype, layout) for case in AVERAGES)
