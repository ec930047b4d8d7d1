"""What 32-bit offsets reach of a convolution's tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from cnnkernels.geometry import ConvGeometry

from .types import LARGEST_INDEX


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
