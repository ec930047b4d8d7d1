"""Average and adaptive average pooling in numpy, by the definition: loops over windows and their places.

Numbers are added one after the other in x's own type, an element's windows and a window's places in ascending order, so
that rounding is the kernels' too: of a kernel that sums so, every bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Average(NamedTuple):
    """One output along one axis: of which elements of the input it is, and how many its divisor counts."""

    places: range
    length: int


def windows(size: int, kernel: int, stride: int, pad: int, ceil_mode: bool, count_include_pad: bool) -> list[Average]:
    """avg_pool's: each place of a window is looked at, the padding after the input too, but nothing beyond it."""
    found = []
    for start in range(-pad, size + pad, stride):
        complete = start + kernel <= size + pad
        if not complete and not (ceil_mode and start < size):
            break
        places = [x for x in range(start, start + kernel) if x < size + pad]
        inside = [x for x in places if 0 <= x < size]
        found.append(Average(range(inside[0], inside[-1] + 1), len(places if count_include_pad else inside)))
        if start + kernel >= size + pad:  # nothing is left over
            break
    return found


def bins(size: int, count: int) -> list[Average]:
    """adaptive_avg_pool's: bin i holds what overlaps [i size / count, (i + 1) size / count)."""
    found = []
    for i in range(count):
        inside = [x for x in range(size) if (x + 1) * count > i * size and x * count < (i + 1) * size]
        found.append(Average(range(inside[0], inside[-1] + 1), len(inside)))
    return found


def divisors(rows: Sequence[Average], columns: Sequence[Average], override: int | None = None) -> np.ndarray:
    """[P, Q], as integers."""
    return np.array([[override or r.length * s.length for s in columns] for r in rows], np.int64)


def forward(x: np.ndarray, rows: Sequence[Average], columns: Sequence[Average], by: np.ndarray) -> np.ndarray:
    """[images, H, W] -> [images, P, Q]: sums over divisors."""
    y = np.zeros((len(x), *by.shape), x.dtype)
    for p, r in enumerate(rows):
        for q, s in enumerate(columns):
            total = np.zeros(len(x), x.dtype)
            for h in r.places:
                for w in s.places:
                    total = total + x[:, h, w]
            y[:, p, q] = total / x.dtype.type(by[p, q])
    return y


def backward(
    grad: np.ndarray,
    rows: Sequence[Average],
    columns: Sequence[Average],
    by: np.ndarray,
    size: tuple[int, int],
    same: bool,
) -> np.ndarray:
    """[images, P, Q] -> [images, H, W]: what an element has of the gradients of the averages that it is in. Their sum
    is divided where all have the `same` divisor, else each."""
    result = np.zeros((len(grad), *size), grad.dtype)
    for p, r in enumerate(rows):
        for q, s in enumerate(columns):
            share = grad[:, p, q] if same else grad[:, p, q] / grad.dtype.type(by[p, q])
            for h in r.places:
                for w in s.places:
                    result[:, h, w] = result[:, h, w] + share
    return result / grad.dtype.type(by.flat[0]) if same else result
