"""The one list of problem sizes, each with its reason. Tests, checks and docs read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..geometry import Axis, ConvGeometry, PoolGeometry, conv_output_size, pool_output_size


@dataclass(frozen=True)
class ConvCase:
    """input [n, c, h, w], filter [k, c / groups, r, s]; padding is (top, bottom, left, right)."""

    reason: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> ConvGeometry:
        rows, columns = zip(self.stride, self.padding[::2], self.padding[1::2], self.dilation, strict=True)

        def axis(size: int, taps: int, stride: int, before: int, after: int, dilation: int) -> Axis:
            places = conv_output_size(size, taps, stride, before, after, dilation)
            return Axis(size, taps, places, stride, before, dilation)

        axes = axis(self.h, self.r, *rows), axis(self.w, self.s, *columns)
        return ConvGeometry.of_axes(self.n, self.c, self.k, self.groups, axes)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.c, self.h, self.w)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.k, self.c // self.groups, self.r, self.s)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return (g.n, g.k, g.p, g.q)

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")


CONV2D: tuple[ConvCase, ...] = (
    ConvCase("one product", 1, 1, 1, 1, 1, 1, 1),
    ConvCase("3x3 same", 2, 8, 7, 9, 16, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("1x1", 2, 16, 5, 6, 24, 1, 1),
    ConvCase("1x1 stride 2 leaves phases empty", 2, 8, 7, 6, 8, 1, 1, stride=(2, 2)),
    ConvCase("stem 7x7 stride 2 of 3 channels", 1, 3, 15, 17, 8, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3)),
    ConvCase("several tiles each way", 2, 72, 8, 9, 136, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("odd channels break vectors", 2, 5, 6, 7, 7, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("uneven everything", 2, 9, 11, 8, 10, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1)),
    ConvCase("stride 3 dilation 2", 1, 8, 14, 13, 8, 3, 3, (3, 3), (2, 2, 2, 2), (2, 2)),
    ConvCase("stride 2 dilation 2 share a factor", 1, 8, 9, 9, 8, 3, 3, (2, 2), (2, 2, 2, 2), (2, 2)),
    ConvCase("stride above kernel skips inputs", 2, 8, 10, 11, 8, 2, 2, stride=(4, 3)),
    ConvCase("padding above the kernel", 1, 8, 4, 3, 8, 3, 2, padding=(5, 4, 3, 6)),
    ConvCase("dilation of one axis", 1, 8, 12, 6, 8, 3, 3, padding=(3, 3, 1, 1), dilation=(3, 1)),
    ConvCase("dilation of the other axis", 1, 8, 6, 12, 8, 3, 3, padding=(1, 1, 3, 3), dilation=(1, 3)),
    ConvCase("filter covers the input", 2, 8, 5, 4, 12, 5, 4),
    ConvCase("row image", 2, 8, 1, 33, 8, 1, 5, padding=(0, 0, 2, 2)),
    ConvCase("two groups", 2, 16, 6, 5, 32, 3, 3, padding=(1, 1, 1, 1), groups=2),
    ConvCase("groups of odd width", 2, 9, 6, 5, 6, 3, 3, padding=(1, 1, 1, 1), groups=3),
    ConvCase("depthwise", 2, 10, 8, 7, 10, 3, 3, padding=(1, 1, 1, 1), groups=10),
    ConvCase("depthwise with multiplier and stride", 1, 6, 9, 8, 12, 3, 3, (2, 2), (1, 1, 1, 1), groups=6),
    ConvCase("long reduction over pixels", 5, 8, 16, 15, 8, 3, 3, padding=(1, 1, 1, 1)),
)


@dataclass(frozen=True)
class PoolCase:
    """input [n, c, h, w], window r x s; or, of adaptive pooling, `bins` instead of windows."""

    reason: str
    n: int
    c: int
    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
    bins: tuple[int, int] | None = None

    @property
    def geometry(self) -> PoolGeometry:
        if self.bins is not None:
            each = zip((self.h, self.w), self.bins, strict=True)
            return PoolGeometry.of_axes(self.n, self.c, [Axis(size, 1, bins) for size, bins in each])
        steps = zip((self.h, self.w), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        axes = [
            Axis(size, taps, pool_output_size(size, taps, stride, pad, dilation, self.ceil_mode), stride, pad, dilation)
            for size, taps, stride, pad, dilation in steps
        ]
        return PoolGeometry.of_axes(self.n, self.c, axes)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return (self.n, self.c, self.h, self.w)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return (g.n, g.c, g.p, g.q)

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")


MAX_POOL2D: tuple[PoolCase, ...] = (
    PoolCase("one element", 1, 1, 1, 1, (1, 1), (1, 1)),
    PoolCase("2x2 stride 2", 2, 8, 6, 8, (2, 2), (2, 2)),
    PoolCase("resnet stem 3x3 stride 2", 2, 16, 9, 11, (3, 3), (2, 2), (1, 1)),
    PoolCase("overlapping 5x5 stride 1", 1, 8, 9, 7, (5, 5), (1, 1), (2, 2)),
    PoolCase("odd channels break vectors", 2, 7, 6, 5, (2, 2), (2, 2)),
    PoolCase("ceil mode last window", 1, 4, 7, 6, (3, 2), (2, 3), ceil_mode=True),
    PoolCase("ceil mode with padding", 1, 4, 5, 6, (2, 3), (3, 2), (1, 1), ceil_mode=True),
    PoolCase("dilated", 2, 8, 10, 11, (3, 2), (2, 1), (1, 0), (2, 3)),
    PoolCase("stride above kernel leaves inputs without a window", 1, 8, 11, 10, (2, 2), (4, 3)),
    PoolCase("uneven", 3, 3, 9, 14, (2, 5), (3, 2), (1, 2)),
    PoolCase("window of 256 places needs two bytes", 1, 2, 18, 17, (16, 16), (1, 1)),
    PoolCase("global", 2, 8, 7, 7, (7, 7), (7, 7)),
    PoolCase("several tiles", 3, 40, 14, 12, (3, 3), (2, 2), (1, 1)),
)

AVG_POOL2D: tuple[PoolCase, ...] = (
    *(case for case in MAX_POOL2D if case.dilation == (1, 1)),
    PoolCase("one bin is the plane", 2, 40, 7, 7, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("a plane in parts", 1, 8, 70, 60, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("bins side by side", 2, 16, 12, 8, (1, 1), (1, 1), bins=(6, 2)),
    PoolCase("bins that overlap", 3, 7, 11, 9, (1, 1), (1, 1), bins=(4, 5)),
    PoolCase("more bins than pixels", 1, 8, 3, 5, (1, 1), (1, 1), bins=(7, 5)),
)


@dataclass(frozen=True)
class DepthwiseSeparableCase:
    """A depthwise convolution, and how many filters the 1x1 convolution after it has."""

    depthwise: ConvCase
    filters: int

    @property
    def geometry(self) -> ConvGeometry:
        return self.depthwise.geometry

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.depthwise.input_shape

    @property
    def depthwise_shape(self) -> tuple[int, int, int, int]:
        return self.depthwise.weight_shape

    @property
    def pointwise_shape(self) -> tuple[int, int, int, int]:
        return (self.filters, self.depthwise.k, 1, 1)

    @property
    def intermediate_shape(self) -> tuple[int, int, int, int]:
        return self.depthwise.output_shape

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return (g.n, self.filters, g.p, g.q)

    def __str__(self) -> str:
        return str(self.depthwise)


def _pair(
    reason: str, n: int, c: int, h: int, w: int, filters: int, r: int, s: int, multiplier: int = 1, **rest: Any
) -> DepthwiseSeparableCase:
    return DepthwiseSeparableCase(ConvCase(reason, n, c, h, w, c * multiplier, r, s, groups=c, **rest), filters)


DEPTHWISE_SEPARABLE_CONV2D: tuple[DepthwiseSeparableCase, ...] = (
    _pair("one product", 1, 1, 1, 1, 1, 1, 1),
    _pair("mobilenet 3x3", 2, 16, 7, 9, 24, 3, 3, padding=(1, 1, 1, 1)),
    _pair("mobilenet 3x3 stride 2", 2, 16, 9, 8, 24, 3, 3, stride=(2, 2), padding=(1, 1, 1, 1)),
    _pair("several stages of channels and tiles of filters", 1, 136, 5, 6, 168, 3, 3, padding=(1, 1, 1, 1)),
    _pair("several patches each way", 2, 8, 19, 21, 8, 3, 3, padding=(1, 1, 1, 1)),
    _pair("odd channels break vectors", 2, 5, 6, 7, 7, 3, 3, padding=(1, 1, 1, 1)),
    _pair("channel multiplier", 2, 6, 6, 5, 10, 3, 3, 2, padding=(1, 1, 1, 1)),
    _pair("uneven everything", 2, 8, 11, 8, 9, 2, 5, stride=(3, 2), padding=(1, 0, 4, 2), dilation=(2, 1)),
    _pair("three columns, strided and dilated rows", 1, 8, 12, 9, 16, 5, 3, stride=(2, 1), dilation=(2, 1)),
    _pair("dilated 3x3", 1, 8, 9, 8, 8, 3, 3, padding=(2, 2, 3, 3), dilation=(2, 3)),
    _pair("stride above kernel skips inputs", 2, 8, 10, 11, 8, 2, 2, stride=(4, 3)),
    _pair("padding above the kernel", 1, 8, 4, 3, 8, 3, 3, padding=(5, 4, 3, 6)),
    _pair("more taps than shared memory holds", 1, 8, 15, 9, 8, 11, 9, padding=(1, 1, 4, 4)),
    _pair("row image", 2, 8, 1, 33, 8, 1, 3, padding=(0, 0, 1, 1)),
)
