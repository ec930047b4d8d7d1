"""From the sizes of a call to its geometry, or PyTorch's error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..geometry import Axis, ConvGeometry, PaddingMode, PoolGeometry, conv_output_size, pool_output_size

_INT_MAX = 2**31 - 1
# Rows and columns that a convolution's windows stay within, and a step that no layer takes.
_FARTHEST, _FAR = 2**30, 2**20


def conv_geometry(
    input_size: Sequence[int],
    weight_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    padding_mode: str = "zeros",
) -> ConvGeometry:
    """The checked geometry of a call with one to three spatial axes.

    Args:
        input_size, weight_size: [N, C, H, W] and [K, C / groups, R, S], or with another number of spatial axes.
        stride, dilation: a number for each spatial axis.
        padding: (before, after) for each spatial axis, the first axis first: (top, bottom, left, right). Of zeros, as
            many after the last may be negative.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
    """
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported, but got groups={groups}")
    before, after = padding[::2], padding[1::2]
    if any(value < 0 for value in (before if padding_mode == "zeros" else padding)):
        raise RuntimeError(f"negative padding is not supported, but got padding={tuple(padding)}")
    for name, values in (("stride", stride), ("dilation", dilation)):
        if any(value < 1 for value in values):
            raise RuntimeError(f"non-positive {name} is not supported, but got {name}={tuple(values)}")
    n, c, *sizes = input_size
    padded = [size + one + other for size, one, other in zip(sizes, before, after, strict=True)]
    if padding_mode != "zeros":
        _check_border(input_size, padding, padding_mode)
        geometry = conv_geometry((n, c, *padded), weight_size, stride, [0] * len(padding), dilation, groups)
        if not any(padding):
            return geometry
        inner = geometry.axes[-len(sizes) :]
        axes = [axis._replace(size=size, pad=pad) for axis, size, pad in zip(inner, sizes, before, strict=True)]
        return ConvGeometry.of_axes(n, c, geometry.k, groups, axes, PaddingMode[padding_mode.upper()])
    k, group_channels, *taps = weight_size
    weight_text, input_text = list(weight_size), list(input_size)
    if k < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, "
            f"but got weight of size {weight_text} instead"
        )
    if k % groups != 0:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {weight_text} instead"
        )
    if c != group_channels * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {weight_text}, expected input{input_text} "
            f"to have {group_channels * groups} channels, but got {c} channels instead"
        )
    if any(count < 1 for count in taps):
        raise RuntimeError(f"kernel size should be greater than zero, but got weight of size {weight_text}")
    axes = [
        Axis(size, count, conv_output_size(size, count, step, one, other, apart), step, one, apart)
        for size, count, step, one, other, apart in zip(sizes, taps, stride, before, after, dilation, strict=True)
    ]
    if any(axis.places < 1 for axis in axes):
        reach = [axis.dilation * (axis.taps - 1) + 1 for axis in axes]
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). "
            f"Kernel size: ({' x '.join(map(str, reach))}). "
            "Kernel size can't be greater than actual input size"
        )
    return ConvGeometry.of_axes(n, c, k, groups, axes)


def conv_kernel_geometry(*arguments: Any) -> ConvGeometry:
    """conv_geometry of plain sizes as kernels take it. Steps over all of the image are cut to the shortest that does:
    windows and taps beyond the first fall outside either way, and products of coordinates stay small.

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
        ValueError: sizes, or windows, beyond what the kernels of every backend count.
    """
    of_planes(arguments[0])
    g = conv_geometry(*arguments)
    axes = g.axes
    taps = math.prod(axis.taps for axis in axes)
    largest = max(g.n, g.c, g.k, *(max(axis.size, axis.taps, axis.places) for axis in axes))
    if largest >= _FARTHEST or g.c // g.groups * taps > _INT_MAX:
        raise ValueError(
            "a convolution's sizes must be below 2^30, and a filter's elements below 2^31, but got input of size "
            f"{list(arguments[0])} and weight of size {list(arguments[1])}"
        )

    def cut(axis: Axis) -> Axis:
        reach = axis.size + axis.pad
        steps = (min(step, reach) if step > _FAR else step for step in (axis.stride, axis.dilation))
        return axis._replace(**dict(zip(("stride", "dilation"), steps, strict=True)))

    axes = tuple(cut(axis) for axis in axes)
    if any(axis.size + 2 * axis.pad + (axis.taps - 1) * axis.dilation >= _FARTHEST for axis in axes):
        raise ValueError(
            "a convolution's windows must stay within 2^30 rows and columns, but got input of size "
            f"{list(arguments[0])}, weight of size {list(arguments[1])}, padding={tuple(arguments[3])} and "
            f"dilation={tuple(arguments[4])}"
        )
    return ConvGeometry.of_axes(g.n, g.c, g.k, g.groups, axes, g.padding_mode)


def of_planes(size: Sequence[int]) -> Sequence[int]:
    """The size of a tensor that has the two spatial axes of the kernels.

    Raises:
        RuntimeError: it has others.
    """
    if len(size) != 4:
        raise RuntimeError(f"expected an input [N, C, H, W], but got input of size {list(size)}")
    return size


def _check_border(size: Sequence[int], padding: Sequence[int], mode: str) -> None:
    """Raises torch.nn.functional.pad's error for padding that an image [N, C, ...] is too small for."""
    if mode != "replicate":
        most = [extent - (mode == "reflect") for extent in size[2:]]
        sides = list(zip(padding[::2], padding[1::2], strict=True))
        if any(max(pair) > limit for pair, limit in zip(sides, most, strict=True)):
            last_first = [side for pair in reversed(sides) for side in pair]
            torch.nn.functional.pad(torch.empty(1).expand(size), last_first, mode)


def pool_geometry(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> PoolGeometry:
    """The checked geometry of a call with one to three spatial axes; `input_size` is [N, C, H, W], or with another
    number of them, and all else a number for each.

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
        ValueError: a window whose places an int32 does not number.
    """
    for name, values in (
        ("kernel_size", kernel_size),
        ("stride", stride),
        ("padding", padding),
        ("dilation", dilation),
    ):
        for value in values:
            if value > _INT_MAX:
                raise RuntimeError(
                    f"max_pool{len(values)}d: {name}={value} cannot be converted to type int without overflow"
                )
    for name, values in (("kernel size", kernel_size), ("stride", stride), ("dilation", dilation)):
        if any(value <= 0 for value in values):
            raise RuntimeError(f"{name} should be greater than zero, but got {tuple(values)}")
    for pad, kernel in zip(padding, kernel_size, strict=True):
        if pad < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {pad}")
        if 2 * pad > kernel:
            raise RuntimeError(
                f"pad should be at most half of kernel size, but got padding={tuple(padding)} "
                f"and kernel_size={tuple(kernel_size)}"
            )
    n, c, *sizes = input_size
    axes = [
        Axis(size, taps, pool_output_size(size, taps, step, pad, apart, ceil_mode), step, pad, apart)
        for size, taps, step, pad, apart in zip(sizes, kernel_size, stride, padding, dilation, strict=True)
    ]
    if any(axis.places < 1 for axis in axes):
        output = "x".join(str(axis.places) for axis in axes)
        raise RuntimeError(
            f"Given input size: ({'x'.join(map(str, input_size[1:]))}). Calculated output size: ({c}x{output}). "
            "Output size is too small"
        )
    if math.prod(kernel_size) > _INT_MAX:
        raise ValueError(
            f"a window of more than 2^31 - 1 places is not supported, but got kernel_size={tuple(kernel_size)}"
        )
    return PoolGeometry.of_axes(n, c, axes)


def pool_kernel_geometry(*arguments: Any) -> PoolGeometry:
    """pool_geometry of plain sizes, for kernels.

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
        ValueError: windows that reach further than kernels of any backend count.
    """
    of_planes(arguments[0])
    g = pool_geometry(*arguments)
    for axis in g.axes:
        reach = axis.size + axis.pad
        if reach + axis.places * min(axis.stride, reach) + axis.taps * min(axis.dilation, reach) > _INT_MAX:
            raise ValueError(
                "a pool's windows must stay within 2^31 rows and columns, but got input of size "
                f"{list(arguments[0])}, kernel_size={tuple(arguments[1])}, stride={tuple(arguments[2])} and "
                f"padding={tuple(arguments[3])}"
            )
    return g


def adaptive_pool_geometry(input_size: Sequence[int], output_size: Sequence[int]) -> PoolGeometry:
    """The geometry of adaptive pooling, of whose windows kernels know the number alone; with one to three spatial axes.

    Raises:
        RuntimeError: PyTorch's error for a size below 0.
    """
    if any(size < 0 for size in output_size):
        raise RuntimeError(
            f"elements of output_size must be greater than or equal to 0, but got output_size={tuple(output_size)}"
        )
    n, c, *sizes = input_size
    return PoolGeometry.of_axes(n, c, [Axis(size, 1, bins) for size, bins in zip(sizes, output_size, strict=True)])
