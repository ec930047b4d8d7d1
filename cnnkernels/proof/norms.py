"""Trials of batch normalization: statistics, what is made of them, and every gradient, exact in every type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..activation import ACTIVATIONS
from ..certified.families import Family
from ..dtypes import FLOATING
from ..geometry import Layout
from ..testing.numerics import small_integers
from .trial import Operands, Results, Trial

# outer, channels, inner: by vectors and by elements, planes and pixels, and more than a block has.
CASES = ((2, 3, 8), (2, 3, 3), (64, 16, 1), (3, 5, 1000), (300, 40, 1))
EPS = 12.0  # beside a variance of 4: the root is 4


def _signs(sizes: tuple[int, int, int]) -> Tensor:
    """1 and -1 by turns, as often in each channel."""
    outer, _, inner = sizes
    places = torch.arange(outer).view(-1, 1, 1) * inner + torch.arange(inner)
    return (1 - places % 2 * 2).double().expand(sizes)


def _forward(dtype: torch.dtype, sizes: tuple[int, int, int]) -> Trial:
    """Elements are their channel's mean plus or minus 2."""

    def call(kernels: Any, device: str) -> Results:
        put, wide = Operands(device, dtype, Layout.NCHW), _wide(dtype)
        signs, channels = _signs(sizes), sizes[1:2]
        means, bias = (small_integers(channels, torch.float64, seed) for seed in (1, 2))
        x = means[:, None] + 2 * signs
        mean, var = put.empty(channels, wide), put.empty(channels, wide)
        kernels.batch_norm_statistics(put.put(x), mean, var, None, None, 0.0, sizes)
        yield from ((mean, means), (var, torch.full_like(means, 4)))
        numbers = tuple(put.put(each, wide) for each in (means, var.cpu(), torch.full_like(means, 8), bias))
        y, relu = put.empty(sizes), ACTIVATIONS.index("relu")
        kernels.batch_norm_normalize(put.put(x), put.put(x), y, numbers, EPS, relu, 0.0, sizes)
        yield y, (4 * signs + bias[:, None] + x).relu()

    return Trial(f"{sizes}", call)


def _backward(dtype: torch.dtype, sizes: tuple[int, int, int]) -> Trial:
    """Of the sum of all elements, which the input's mean takes out of its gradient."""

    def call(kernels: Any, device: str) -> Results:
        put, wide = Operands(device, dtype, Layout.NCHW), _wide(dtype)
        signs, (outer, channels, inner) = _signs(sizes), sizes
        means = small_integers((channels,), torch.float64, 1)
        x = means[:, None] + 2 * signs
        each = (means, torch.full_like(means, 4), torch.full_like(means, 8), means)
        numbers = tuple(put.put(number, wide) for number in each)
        of_x, of_weight, of_bias = put.empty(sizes), put.empty((channels,), wide), put.empty((channels,), wide)
        gradients = of_x, of_weight, of_bias, None
        dy = put.put(torch.ones(sizes))
        kernels.batch_norm_backward(dy, put.put(x), None, None, numbers, EPS, 0, 0.0, True, gradients, sizes)
        zeros = torch.zeros_like(means)
        yield from ((of_x, torch.zeros(sizes)), (of_weight, zeros), (of_bias, zeros + outer * inner))
        sums, joined = put.empty((2, channels), wide), put.empty(sizes)
        kernels.batch_norm_sums(put.put(x), dy, None, sums, sizes)
        yield sums, torch.stack([x.sum((0, 2))] * 2)
        scale, mean, _, bias = numbers[2], *numbers[:2], numbers[3]
        kernels.batch_norm_combine(put.put(x), dy, put.put(x), joined, (scale, mean, bias, scale, mean), sizes)
        yield joined, 16 * signs + (means + 8)[:, None] + means[:, None] * x

    return Trial(f"{sizes}", call)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def trials(family: Family) -> Iterator[Trial]:
    of = {"forward": _forward, "backward": _backward}[family.direction]
    for sizes in CASES:
        if sizes[0] * sizes[2] % 2 == 0:
            yield of(FLOATING[family.element], sizes)
