"""depthwise_conv2d's problem sizes, each with its reason. Tests, checks and docs read them."""

from __future__ import annotations

from .cases import ConvCase

Pair = tuple[int, int]


def depthwise(
    reason: str,
    n: int,
    c: int,
    size: Pair,
    kernel: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    multiplier: int = 1,
) -> ConvCase:
    """input [n, c, *size], filter [c multiplier, 1, *kernel]; padding of (rows, columns), the same on both sides."""
    sides = padding[0], padding[0], padding[1], padding[1]
    return ConvCase(reason, n, c, *size, c * multiplier, *kernel, stride, sides, dilation, groups=c)


DEPTHWISE_CONV2D: tuple[ConvCase, ...] = (
    depthwise("one product", 1, 1, (1, 1), (1, 1)),
    depthwise("mobilenet 3x3", 1, 16, (14, 14), (3, 3), padding=(1, 1)),
    depthwise("mobilenet 3x3 stride 2", 1, 16, (15, 14), (3, 3), (2, 2), (1, 1)),
    depthwise("efficientnet 5x5", 1, 24, (14, 13), (5, 5), padding=(2, 2)),
    depthwise("efficientnet 5x5 stride 2", 1, 8, (14, 15), (5, 5), (2, 2), (2, 2)),
    depthwise("convnext 7x7 on its last map", 3, 8, (7, 7), (7, 7), padding=(3, 3)),
    depthwise("7x7 stride 2 has no chunk of 7", 1, 8, (13, 12), (7, 7), (2, 2), (3, 3)),
    depthwise("one channel", 2, 1, (9, 10), (3, 3), padding=(1, 1)),
    depthwise("three channels", 2, 3, (9, 8), (3, 3), padding=(1, 1)),
    depthwise("seven channels", 1, 7, (9, 8), (5, 3), (2, 1), (2, 1)),
    depthwise("twelve channels: whole vectors of fp32 alone", 1, 12, (6, 11), (3, 5), padding=(1, 2)),
    depthwise("a hundred channels", 1, 100, (3, 4), (3, 3), padding=(1, 1)),
    depthwise("channels beyond a block's lanes", 1, 72, (3, 5), (3, 3), (1, 2), (1, 1)),
    depthwise("1x1 scales", 2, 8, (5, 6), (1, 1)),
    depthwise("1x1 stride 3 leaves phases empty", 1, 5, (8, 7), (1, 1), (3, 3)),
    depthwise("2x2 has no chunk", 2, 8, (6, 7), (2, 2), (2, 2)),
    depthwise("4x6 leaves a tap over", 1, 8, (9, 11), (4, 6), padding=(2, 3)),
    depthwise("8x9 of one chunk and more", 1, 8, (10, 12), (8, 9), padding=(3, 4)),
    depthwise("10x11 of several chunks", 1, 5, (12, 14), (10, 11), padding=(5, 5)),
    depthwise("9x9 stride 2", 1, 8, (12, 13), (9, 9), (2, 2), (4, 4)),
    depthwise("replknet 13x13", 1, 8, (6, 9), (13, 13), padding=(6, 6)),
    depthwise("replknet 31x31", 1, 2, (5, 9), (31, 31), padding=(15, 15)),
    depthwise("filter of a row", 2, 8, (1, 33), (1, 5), padding=(0, 2)),
    depthwise("filter of a column", 2, 8, (33, 1), (5, 1), padding=(2, 0)),
    depthwise("stride 3", 1, 8, (14, 13), (3, 3), (3, 3), (1, 1)),
    depthwise("strides of the axes differ", 1, 9, (11, 12), (5, 4), (3, 2), (2, 1)),
    depthwise("dilation 2", 1, 8, (9, 10), (3, 3), padding=(2, 2), dilation=(2, 2)),
    depthwise("dilation 3 of one axis", 2, 4, (12, 7), (3, 3), padding=(3, 1), dilation=(3, 1)),
    depthwise("stride 2 dilation 2 share a factor", 1, 8, (9, 9), (3, 3), (2, 2), (2, 2), (2, 2)),
    depthwise("stride 3 dilation 2", 1, 8, (14, 13), (3, 3), (3, 3), (2, 2), (2, 2)),
    depthwise("stride above kernel skips inputs", 1, 8, (10, 11), (2, 3), (4, 5)),
    depthwise("padding above the kernel", 1, 8, (4, 3), (3, 2), padding=(5, 4)),
    depthwise("filter covers the input", 2, 8, (5, 4), (5, 4)),
    depthwise("multiplier", 2, 4, (6, 7), (3, 3), padding=(1, 1), multiplier=2),
    depthwise("multiplier 3 and stride", 1, 5, (9, 8), (5, 5), (2, 2), (2, 2), multiplier=3),
    depthwise("long sum over pixels", 5, 8, (17, 19), (3, 3), padding=(1, 1)),
)
