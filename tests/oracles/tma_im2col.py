"""TMA's im2col mode and the convolutions made of it, in numpy.

A column is a run of pixels of an ``[N, H, W, C]`` tensor. The places a filter's first tap can have form a grid: along a
spatial dimension of size n they go from ``lower`` to ``n - 1 + upper`` by ``step``. Places are numbered along W, then
H, then N; a column reads ``pixels`` of them one after the other, each shifted by the filter's ``tap``, and finds zeros
outside the tensor. The interpreter walks from place to place as the hardware does; here place i is computed from i.

Pairs and coordinates are innermost first, ``(w, h)`` and ``(c, w, h, n)``, as in cuTensorMapEncodeIm2col. The column of
places is exactly the row of an implicit GEMM, for the forward pass and both gradients: the functions below are those
GEMMs, and the test of this module compares them with PyTorch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Pair = tuple[int, int]  # (w, h)


def column(
    x: np.ndarray,
    start: Sequence[int],
    tap: Sequence[int],
    pixels: int,
    channels: int,
    lower: Sequence[int],
    upper: Sequence[int],
    step: Sequence[int],
) -> np.ndarray:
    """The column of ``x [N, .., W, C]`` as ``[pixels, channels]``; start = (c, w, .., n), the others = (w, ..)."""
    sizes = x.shape[-2:0:-1]  # W, H, ..
    counts = [-(-(size + up - low) // by) for size, low, up, by in zip(sizes, lower, upper, step, strict=True)]
    indices = [(at - low) // by for at, low, by in zip(start[1:-1], lower, step, strict=True)]
    first = 0
    for index, count in zip([*indices, start[-1]][::-1], [*counts, 1][::-1], strict=True):
        first = first * count + index

    c = start[0]
    found = np.zeros((pixels, channels), x.dtype)
    for i in range(pixels):
        rest = first + i
        at = []
        for low, by, count, shift in zip(lower, step, counts, tap, strict=True):
            rest, index = divmod(rest, count)
            at.append(low + index * by + shift)
        at.append(rest)  # the image
        if all(0 <= a < size for a, size in zip(at, x.shape[-2::-1], strict=True)):
            values = x[tuple(reversed(at))][c : c + channels]
            found[i, : len(values)] = values
    return found


class Conv(NamedTuple):
    """Pairs (w, h); padding before and after."""

    stride: Pair
    dilation: Pair
    before: Pair
    after: Pair

    def output_size(self, size: Pair, filter_size: Pair) -> Pair:
        w, h = (
            (n + b + a - (f - 1) * d - 1) // s + 1 for n, f, s, d, b, a in zip(size, filter_size, *self, strict=True)
        )
        return w, h


def forward(x: np.ndarray, weight: np.ndarray, conv: Conv, tile: int = 7) -> np.ndarray:
    """y [N, P, Q, K] of x [N, H, W, C] and weight [K, R, S, C]: rows of the GEMM are output pixels."""
    k, r_size, s_size, _ = weight.shape
    n, h, w, c = x.shape
    q, p = conv.output_size((w, h), (s_size, r_size))
    lower = [-b for b in conv.before]
    upper = [a - (f - 1) * d for a, f, d in zip(conv.after, (s_size, r_size), conv.dilation, strict=True)]
    y = np.zeros((n * p * q, k), x.dtype)
    for m in range(0, len(y), tile):
        start = _start(m, q, p, lower, conv.stride)
        for r, s in itertools.product(range(r_size), range(s_size)):
            tap = (s * conv.dilation[0], r * conv.dilation[1])
            a = column(x, start, tap, tile, c, lower, upper, conv.stride)
            assert not a[len(y) - m :].any(), "pixels past the last image must read as zero"
            y[m : m + tile] += (a @ weight[:, r, s].T)[: len(y) - m]
    return y.reshape(n, p, q, k)


class Phase(NamedTuple):
    """One residue of the input's coordinate modulo the stride: input = residue + stride * i is reached by the taps
    ``first + j * every``, j < count, from the outputs ``i + lower + (count - 1 - j) * shift``."""

    first: int
    every: int
    count: int
    lower: int
    shift: int


def phase(residue: int, before: int, stride: int, dilation: int, filter_size: int) -> Phase | None:
    """None where no tap reaches this residue: its gradient is zero."""
    common = math.gcd(dilation, stride)
    every = stride // common
    taps = [r for r in range(min(every, filter_size)) if (residue + before - r * dilation) % stride == 0]
    if not taps:
        return None
    first = taps[0]
    count = (filter_size - 1 - first) // every + 1
    base = (residue + before - first * dilation) // stride
    shift = dilation // common
    return Phase(first, every, count, base - (count - 1) * shift, shift)


def backward_input(grad: np.ndarray, weight: np.ndarray, size: Pair, conv: Conv, tile: int = 7) -> np.ndarray:
    """grad_input [N, H, W, C] of grad [N, P, Q, K], size = (W, H). Every residue of the stride is a convolution of grad
    with stride 1 and its own taps, so no product with an inserted zero is ever made."""
    n, p, q, k = grad.shape
    _, r_size, s_size, c = weight.shape
    w, h = size
    grad_input = np.full((n, h, w, c), np.nan, grad.dtype)
    for b, a in itertools.product(range(min(conv.stride[0], w)), range(min(conv.stride[1], h))):
        along_w = phase(b, conv.before[0], conv.stride[0], conv.dilation[0], s_size)
        along_h = phase(a, conv.before[1], conv.stride[1], conv.dilation[1], r_size)
        target = grad_input[:, a :: conv.stride[1], b :: conv.stride[0]]
        if along_w is None or along_h is None:
            target[:] = 0
            continue
        rows, columns = target.shape[1:3]
        lower = (along_w.lower, along_h.lower)
        upper = (columns - q + along_w.lower, rows - p + along_h.lower)
        total = np.zeros((n * rows * columns, c), grad.dtype)
        for m in range(0, len(total), tile):
            start = _start(m, columns, rows, lower, (1, 1))
            for j, i in itertools.product(range(along_h.count), range(along_w.count)):
                r = along_h.first + (along_h.count - 1 - j) * along_h.every
                s = along_w.first + (along_w.count - 1 - i) * along_w.every
                tap = (i * along_w.shift, j * along_h.shift)
                rows_of_k = column(grad, start, tap, tile, k, lower, upper, (1, 1))
                total[m : m + tile] += (rows_of_k @ weight[:, r, s])[: len(total) - m]
        target[:] = total.reshape(target.shape)
    return grad_input


def backward_weight(x: np.ndarray, grad: np.ndarray, filter_size: Pair, conv: Conv, tile: int = 8) -> np.ndarray:
    """grad_weight [K, R, S, C]: the GEMM sums over output pixels, a column of x beside as many rows of grad."""
    n, p, q, k = grad.shape
    s_size, r_size = filter_size
    lower = [-b for b in conv.before]
    upper = [a - (f - 1) * d for a, f, d in zip(conv.after, filter_size, conv.dilation, strict=True)]
    rows = grad.reshape(-1, k)
    grad_weight = np.zeros((k, r_size, s_size, x.shape[-1]), x.dtype)
    for r, s in itertools.product(range(r_size), range(s_size)):
        tap = (s * conv.dilation[0], r * conv.dilation[1])
        for m in range(0, n * p * q, tile):
            start = _start(m, q, p, lower, conv.stride)
            pixels = column(x, start, tap, tile, x.shape[-1], lower, upper, conv.stride)
            part = rows[m : m + tile]
            grad_weight[:, r, s] += part.T @ pixels[: len(part)]
    return grad_weight


def _start(m: int, columns: int, rows: int, lower: Sequence[int], step: Sequence[int]) -> tuple[int, int, int, int]:
    """(c, w, h, n) of the m-th place."""
    n, rest = divmod(m, columns * rows)
    h, w = divmod(rest, columns)
    return 0, lower[0] + w * step[0], lower[1] + h * step[1], n
