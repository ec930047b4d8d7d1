"""Batch normalization's kernels: every type, by vectors and by elements, and each of a room's ways."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from cnnkernels.activation import ACTIVATIONS
from cnnkernels.dtypes import FLOATING
from cnnkernels.testing.numerics import small_integers
from helpers.every_kernel import Trial, emulated

SOURCES = ("norm/statistics.cu", "norm/normalize.cu", "norm/backward.cu")


def room(like: torch.Tensor, *size: int) -> torch.Tensor:
    return torch.full(size, torch.nan, dtype=like.dtype)


def normalized(dtype: torch.dtype, sizes: tuple[int, int, int]) -> None:
    """Elements are their mean plus or minus 2, and var + eps is 16; gradients are ones, so that the input's are 0."""
    outer, channels, inner = sizes
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    signs = 1 - torch.arange(outer * inner).view(outer, 1, inner) % 2 * 2
    signs = signs.expand(sizes).to(wide)
    means = small_integers((channels,), wide, 1)
    x, k = (means[:, None] + 2 * signs).to(dtype).contiguous(), emulated()
    mean, var = room(means, channels), room(means, channels)
    k.batch_norm_statistics(x, mean, var, None, None, 0.0, sizes)
    assert torch.equal(mean, means) and var.eq(4).all()
    weight, bias = torch.full_like(means, 8), small_integers((channels,), wide, 2)
    y, residual, numbers = room(x, *sizes), x.clone(), (mean, var, weight, bias)
    relu = ACTIVATIONS.index("relu")
    k.batch_norm_normalize(x, residual, y, numbers, 12.0, relu, 0.0, sizes)
    z = 4 * signs + bias[:, None] + x.to(wide)
    assert torch.equal(y, z.relu().to(dtype))
    ones, gradients = torch.ones_like(x), [room(x, *sizes), room(weight, channels), room(bias, channels), None]
    k.batch_norm_backward(ones, x, None, None, numbers, 12.0, 0, 0.0, True, gradients, sizes)
    assert not gradients[0].any() and not gradients[1].any() and gradients[2].eq(outer * inner).all()
    sums, result = room(means, 2, channels), room(x, *sizes)
    k.batch_norm_sums(x, ones, None, sums, sizes)
    assert all(torch.equal(s, x.to(wide).sum((0, 2))) for s in sums)
    k.batch_norm_combine(x, ones, x, result, (weight, mean, bias, weight, mean), sizes)
    assert torch.equal(result, (16 * signs + (bias + 8)[:, None] + means[:, None] * x.to(wide)).to(dtype))


def trials(source: str) -> Iterator[Trial]:
    if source != SOURCES[0]:  # the others' are among them
        return
    for name, dtype in FLOATING.items():
        for sizes in ((2, 3, 8), (2, 3, 3), (64, 16, 1)):
            yield Trial(f"{name} of {sizes}", partial(normalized, dtype, sizes))
