"""A convolution's geometry: what kernels take of it, one tuple, and what 32-bit offsets reach of its tensors.

A kernel takes `arguments` as its `geometry` and unpacks it by `sizes_of`. What is a constant to the compiler, or a
multiple of 16, is that within a tuple, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ...geometry import ConvGeometry
from .types import LARGEST_INDEX, as_wide


def arguments(g: ConvGeometry, unit_c: int = 1, unit_k: int = 1) -> tuple[int, ...]:
    """A kernel's `geometry`; channels count `unit_c`, filters `unit_k`."""
    group = g.c // g.groups // unit_c, g.k // g.groups // unit_k
    return (g.n, g.c // unit_c, g.h, g.w, g.k // unit_k, g.p, g.q, *g.steps, *group)


@triton.jit
def sizes_of(geometry, UNIT_C: tl.constexpr, UNIT_K: tl.constexpr, WIDE: tl.constexpr):
    """N, C, H, W, K, P, Q, a group's channels and filters, and the window: strides, padding and dilations."""
    geometry = as_wide(geometry, WIDE)
    N, C, H, W, K, P, Q = geometry[:7]
    channels, filters = geometry[13:]
    return N, C * UNIT_C, H, W, K * UNIT_K, P, Q, channels * UNIT_C, filters * UNIT_K, geometry[7:13]


@triton.jit
def window_start(p, q, window):
    """The row and column that the first tap of an output pixel reads."""
    stride_h, stride_w, pad_h, pad_w, _, _ = window
    return p * stride_h - pad_h, q * stride_w - pad_w


@triton.jit
def tap_distance(r, s, window):
    """How far from its window's start a tap reads."""
    _, _, _, _, dilation_h, dilation_w = window
    return r * dilation_h, s * dilation_w


def _axis_overhang(size: int, places: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """How far beyond the input and beyond the output an axis' coordinates get on their way: kernels add the place of a
    window to the place of a tap, and only their sum lies inside. And by a step of each, which they may take alone."""
    reached = taps * dilation
    input = pad + reached + max(0, (places - 1) * stride - size) + stride
    return input, max(0, (size + pad) // stride + 1 - places) + 2 * (reached // stride + 1)


def overhang(g: ConvGeometry) -> tuple[int, int]:
    """The same in elements of both images, channels_last: of the other layout no more."""
    rows = _axis_overhang(g.h, g.p, g.r, g.stride_h, g.pad_h, g.dilation_h)
    columns = _axis_overhang(g.w, g.q, g.s, g.stride_w, g.pad_w, g.dilation_w)
    return (rows[0] * g.w + columns[0]) * g.c, (rows[1] * g.q + columns[1]) * g.k


def most_images(g: ConvGeometry) -> int:
    """How many images of a problem's 32-bit offsets reach, at least 1."""
    input, output = overhang(g)
    return max(1, min((LARGEST_INDEX - input) // (g.c * g.h * g.w), (LARGEST_INDEX - output) // (g.k * g.p * g.q)))


def is_wide(g: ConvGeometry) -> bool:
    """Do offsets in a problem's tensors take 64 bits? (In forward and backward-input: in those of one image.)"""
    input, output = overhang(g)
    weight = g.k * (g.c // g.groups) * g.r * g.s
    return max(g.n * g.c * g.h * g.w + input, g.n * g.k * g.p * g.q + output, weight) > LARGEST_INDEX


def in_slices(g: ConvGeometry, *images: Tensor) -> Iterator[tuple[Any, ...]]:
    """The geometry and the tensors of a batch in slices that 32-bit offsets reach; a larger image is one alone.

    64-bit offsets take twice the registers, and what tiles a sample is cut into may not depend on the batch.
    """
    each = most_images(g)
    if each >= g.n:
        yield g, *images
        return
    for first in range(0, g.n, each):
        yield g._replace(n=min(each, g.n - first)), *(t[first : first + each] for t in images)
