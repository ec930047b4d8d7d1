"""quantize's and dequantize's kernels: every type, and the three ways in which largest magnitudes are found."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import torch

from cnnkernels.dtypes import FLOATING
from cnnkernels.testing.numerics import small_integers
from helpers.every_kernel import Trial, emulated

# outer, groups, inner: rows in registers, runs of planes, columns
SHAPES = [(1, 7, 337), (2, 3, 1099), (101, 19, 1)]


def there_and_back(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    """Integers to 127, which the scale 1 leaves as they are."""
    x = small_integers(shape, torch.float64, seed=1, bound=126)
    x[0, :, 0] = 127
    kernels, q = emulated(), torch.full(shape, 113, dtype=torch.int8)
    scale, y = torch.full((shape[1],), float("nan")), torch.full(shape, float("nan"), dtype=dtype)
    kernels.quantize(x.to(dtype), q, scale, 0, True)
    assert torch.equal(scale, torch.ones(shape[1]))
    assert torch.equal(q, x.to(torch.int8))
    kernels.quantize(x.to(dtype), q.fill_(113), 2.0, 3)
    assert torch.equal(q, (torch.round(x / 2) + 3).clamp(-128, 127).to(torch.int8))
    kernels.dequantize(q, y, 2.0, 3)
    assert torch.equal(y, ((q - 3.0) * 2).to(dtype))


def larger(source: str) -> Iterator[Trial]:
    """Rows of several warps, and columns that every warp of a block has a part of."""
    if source == "quantize/quantize.cu":
        for dtype, shape in itertools.product(FLOATING.values(), [(1, 3, 2000), (900, 19, 1)]):
            yield Trial(f"{shape} of {dtype}", partial(there_and_back, dtype, shape))


def trials(source: str) -> Iterator[Trial]:
    if source == "quantize/quantize.cu":
        for dtype in FLOATING.values():
            for shape in SHAPES:
                yield Trial(f"{shape} of {dtype}", partial(there_and_back, dtype, shape))
