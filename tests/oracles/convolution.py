"""Convolution and its transpose in numpy, by the definition, of one or two spatial axes: loops over outputs, or over
inputs, and taps. x: [N, C, ...]; filters [K, C / groups, ...], or of the transpose [C, K / groups, ...]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np


def correlate(
    x: np.ndarray, w: np.ndarray, stride: Sequence[int], before: Sequence[int], after: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> np.ndarray:  # fmt: skip
    """before, after: zeros on either side of each axis."""
    axes = zip(x.shape[2:], w.shape[2:], stride, before, after, dilation, strict=True)
    places = [(size + a + b - d * (taps - 1) - 1) // s + 1 for size, taps, s, a, b, d in axes]
    filters, channels = w.shape[0] // groups, w.shape[1]
    y = np.zeros((x.shape[0], w.shape[0], *places), x.dtype)
    for k, c in product(range(w.shape[0]), range(channels)):
        of_input = x[:, k // filters * channels + c]
        for place, tap in product(np.ndindex(*places), np.ndindex(*w.shape[2:])):
            at = tuple(o * s - a + t * d for o, s, a, t, d in zip(place, stride, before, tap, dilation, strict=True))
            if all(0 <= i < size for i, size in zip(at, x.shape[2:], strict=True)):
                y[(slice(None), k, *place)] += of_input[(slice(None), *at)] * w[(k, c, *tap)]
    return y


def transpose(
    x: np.ndarray, w: np.ndarray, stride: Sequence[int], padding: Sequence[int], output_padding: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> np.ndarray:  # fmt: skip
    axes = zip(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation, strict=True)
    extents = [(size - 1) * s - 2 * p + d * (taps - 1) + more + 1 for size, taps, s, p, more, d in axes]
    channels, filters = w.shape[0] // groups, w.shape[1]
    y = np.zeros((x.shape[0], filters * groups, *extents), x.dtype)
    for c, k in product(range(w.shape[0]), range(filters)):
        of_output = y[:, c // channels * filters + k]
        for place, tap in product(np.ndindex(*x.shape[2:]), np.ndindex(*w.shape[2:])):
            at = tuple(i * s - p + t * d for i, s, p, t, d in zip(place, stride, padding, tap, dilation, strict=True))
            if all(0 <= o < size for o, size in zip(at, extents, strict=True)):
                of_output[(slice(None), *at)] += x[(slice(None), c, *place)] * w[(c, k, *tap)]
    return y
