"""The geometry of an operator in the field's letters, as the kernels take it (csrc/common/geometry.h)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import torch


class Layout(IntEnum):
    """How the four axes lie in memory; filters follow: KRSC beside NHWC, KCRS beside NCHW."""

    NCHW = 0
    NHWC = 1

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self is Layout.NHWC else torch.contiguous_format


class PaddingMode(IntEnum):
    """What lies outside the image: zeros or its own pixels, as torch.nn.Conv2d's padding_mode."""

    ZEROS = 0
    REFLECT = 1
    REPLICATE = 2
    CIRCULAR = 3


PADDING_MODES = tuple(mode.name.lower() for mode in PaddingMode)


class Axis(NamedTuple):
    """One spatial axis: output o's tap t reads input o stride - pad + t dilation."""

    size: int
    taps: int
    places: int  # of the output
    stride: int = 1
    pad: int = 0
    dilation: int = 1


class ConvGeometry(NamedTuple):
    """Input [n, c, d, h, w], filter [k, c / groups, t, r, s], output [n, k, z, p, q].

    Of a convolution with fewer spatial axes the first of them are of extent 1, stride 1 and no padding. `pad_d`,
    `pad_h`, `pad_w` stand before the first of an axis; what is needed after the last follows from z, p and q. Only
    conv's forward and backward_weight know padding of anything but zeros.
    """

    n: int
    c: int
    d: int
    h: int
    w: int
    k: int
    t: int
    r: int
    s: int
    z: int
    p: int
    q: int
    stride_d: int
    stride_h: int
    stride_w: int
    pad_d: int
    pad_h: int
    pad_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    groups: int
    padding_mode: PaddingMode = PaddingMode.ZEROS

    @classmethod
    def of_axes(
        cls, n: int, c: int, k: int, groups: int, axes: Sequence[Axis], padding_mode: PaddingMode = PaddingMode.ZEROS
    ) -> ConvGeometry:
        """Of one to three spatial axes, the last of them w."""
        sizes, taps, places, *steps = zip(*_three(axes), strict=True)
        flat = (x for step in steps for x in step)
        return cls._make((n, c, *sizes, k, *taps, *places, *flat, groups, padding_mode))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All three, d first."""
        return tuple(Axis(*fields) for fields in zip(*_by_threes(self[2:5] + self[6:21]), strict=True))

    @property
    def steps(self) -> tuple[int, ...]:
        """Strides, padding and dilations of h and w, as kernels of planes take them."""
        return (self.stride_h, self.stride_w, self.pad_h, self.pad_w, self.dilation_h, self.dilation_w)

    def on_padded_image(self, *extents: int) -> ConvGeometry:
        """The same convolution of an image that has its padding already; `extents`: its spatial ones."""
        padded = [
            axis._replace(size=size, pad=0) for axis, size in zip(self.axes[-len(extents) :], extents, strict=True)
        ]
        return ConvGeometry.of_axes(self.n, self.c, self.k, self.groups, padded)


class PoolGeometry(NamedTuple):
    """Input [n, c, d, h, w], window t x r x s, output [n, c, z, p, q]; fewer spatial axes as in ConvGeometry."""

    n: int
    c: int
    d: int
    h: int
    w: int
    t: int
    r: int
    s: int
    z: int
    p: int
    q: int
    stride_d: int
    stride_h: int
    stride_w: int
    pad_d: int
    pad_h: int
    pad_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int

    @classmethod
    def of_axes(cls, n: int, c: int, axes: Sequence[Axis]) -> PoolGeometry:
        """Of one to three spatial axes, the last of them w."""
        return cls._make((n, c, *(x for fields in zip(*_three(axes), strict=True) for x in fields)))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All three, d first."""
        return tuple(Axis(*fields) for fields in zip(*_by_threes(self[2:]), strict=True))

    @property
    def steps(self) -> tuple[int, ...]:
        """Strides, padding and dilations of h and w, as kernels of planes take them."""
        return (self.stride_h, self.stride_w, self.pad_h, self.pad_w, self.dilation_h, self.dilation_w)


def _three(axes: Sequence[Axis]) -> list[Axis]:
    return [Axis(1, 1, 1)] * (3 - len(axes)) + list(axes)


def _by_threes(fields: Sequence[int]) -> list[Sequence[int]]:
    return [fields[i : i + 3] for i in range(0, len(fields), 3)]


def conv_output_size(size: int, kernel: int, stride: int, pad_before: int, pad_after: int, dilation: int) -> int:
    """floor((W + P - dilation (F - 1) - 1) / S) + 1: the places a filter of F taps finds on W + P elements."""
    return (size + pad_before + pad_after - dilation * (kernel - 1) - 1) // stride + 1


def pool_output_size(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: bool) -> int:
    """PyTorch's rule: as a convolution's, or rounded up, but the last window must start inside the input
    or the padding before it."""
    span = size + 2 * pad - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + pad else out


def argmax_dtype(r: int, s: int) -> torch.dtype:
    """The narrowest type that holds a place r * S + s of the window."""
    places = r * s
    return torch.uint8 if places <= 255 else torch.uint16 if places <= 65535 else torch.int32
