"""The geometry of an operator in the field's letters, as the kernels take it (csrc/common/geometry.h)."""

from __future__ import annotations

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


class ConvGeometry(NamedTuple):
    """Input [n, c, h, w], filter [k, c / groups, r, s], output [n, k, p, q].

    `pad_h`, `pad_w` stand before the first row and column; what is needed after the last follows from p and q. Only
    conv2d's forward and backward_weight know padding of anything but zeros.
    """

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    p: int
    q: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    padding_mode: PaddingMode = PaddingMode.ZEROS

    def on_padded_image(self, height: int, width: int) -> ConvGeometry:
        """The same convolution of an image that has its padding already."""
        return self._replace(h=height, w=width, pad_h=0, pad_w=0, padding_mode=PaddingMode.ZEROS)


class PoolGeometry(NamedTuple):
    """Input [n, c, h, w], window r x s, output [n, c, p, q]."""

    n: int
    c: int
    h: int
    w: int
    r: int
    s: int
    p: int
    q: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int


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
