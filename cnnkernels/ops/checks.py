"""From the sizes of a call to its geometry, or PyTorch's error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..geometry import ConvGeometry, PaddingMode, PoolGeometry, conv_output_size, pool_output_size

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
    """The checked geometry of a call.

    Args:
        input_size, weight_size: [N, C, H, W] and [K, C / groups, R, S].
        padding: (top, bottom, left, right).
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
    """
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported, but got groups={groups}")
    for name, values, least, kind in (
        ("padding", padding, 0, "negative"),
        ("stride", stride, 1, "non-positive"),
        ("dilation", dilation, 1, "non-positive"),
    ):
        if any(value < least for value in values):
            raise RuntimeError(f"{kind} {name} is not supported, but got {name}={tuple(values)}")
    n, c, h, w = input_size
    if padding_mode != "zeros":
        top, bottom, left, right = padding
        _check_border(input_size, padding, padding_mode)
        padded = (n, c, h + top + bottom, w + left + right)
        geometry = conv_geometry(padded, weight_size, stride, (0, 0, 0, 0), dilation, groups)
        if not any(padding):
            return geometry
        return geometry._replace(h=h, w=w, pad_h=top, pad_w=left, padding_mode=PaddingMode[padding_mode.upper()])
    k, group_channels, r, s = weight_size
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
    if r < 1 or s < 1:
        raise RuntimeError(f"kernel size should be greater than zero, but got weight of size {weight_text}")
    top, bottom, left, right = padding
    p = conv_output_size(h, r, stride[0], top, bottom, dilation[0])
    q = conv_output_size(w, s, stride[1], left, right, dilation[1])
    if p < 1 or q < 1:
        raise RuntimeError(
            f"Calculated padded input size per channel: ({h + top + bottom} x {w + left + right}). "
            f"Kernel size: ({dilation[0] * (r - 1) + 1} x {dilation[1] * (s - 1) + 1}). "
            "Kernel size can't be greater than actual input size"
        )
    return ConvGeometry(n, c, h, w, k, r, s, p, q, stride[0], stride[1], top, left, dilation[0], dilation[1], groups)


def conv_kernel_geometry(*arguments: Any) -> ConvGeometry:
    """conv_geometry of plain sizes as kernels take it. Steps over all of the image are cut to the shortest that does:
    windows and taps beyond the first fall outside either way, and products of coordinates stay small.

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
        ValueError: sizes, or windows, beyond what the kernels of every backend count.
    """
    g = conv_geometry(*arguments)
    if max(g[:9]) >= _FARTHEST or g.c // g.groups * g.r * g.s > _INT_MAX:
        raise ValueError(
            "a convolution's sizes must be below 2^30, and a filter's elements below 2^31, but got input of size "
            f"{list(arguments[0])} and weight of size {list(arguments[1])}"
        )

    def cut(step: int, size: int) -> int:
        return min(step, size) if step > _FAR else step

    g = g._replace(
        stride_h=cut(g.stride_h, g.h + g.pad_h),
        stride_w=cut(g.stride_w, g.w + g.pad_w),
        dilation_h=cut(g.dilation_h, g.h + g.pad_h),
        dilation_w=cut(g.dilation_w, g.w + g.pad_w),
    )
    rows = g.h + 2 * g.pad_h + (g.r - 1) * g.dilation_h
    columns = g.w + 2 * g.pad_w + (g.s - 1) * g.dilation_w
    if max(rows, columns) >= _FARTHEST:
        raise ValueError(
            "a convolution's windows must stay within 2^30 rows and columns, but got input of size "
            f"{list(arguments[0])}, weight of size {list(arguments[1])}, padding={tuple(arguments[3])} and "
            f"dilation={tuple(arguments[4])}"
        )
    return g


def _check_border(size: Sequence[int], padding: Sequence[int], mode: str) -> None:
    """Raises torch.nn.functional.pad's error for padding that an image [N, C, H, W] is too small for."""
    top, bottom, left, right = padding
    if mode != "replicate":
        most = [extent - (mode == "reflect") for extent in size[2:]]
        if max(top, bottom) > most[0] or max(left, right) > most[1]:
            torch.nn.functional.pad(torch.empty(1).expand(size), (left, right, top, bottom), mode)


def pool_geometry(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> PoolGeometry:
    """The checked geometry of a call; `input_size` is [N, C, H, W].

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
                raise RuntimeError(f"max_pool2d: {name}={value} cannot be converted to type int without overflow")
    for name, (first, second) in (("kernel size", kernel_size), ("stride", stride), ("dilation", dilation)):
        if first <= 0 or second <= 0:
            raise RuntimeError(f"{name} should be greater than zero, but got ({first}, {second})")
    for pad, kernel in zip(padding, kernel_size, strict=True):
        if pad < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {pad}")
        if 2 * pad > kernel:
            raise RuntimeError(
                f"pad should be at most half of kernel size, but got padding={tuple(padding)} "
                f"and kernel_size={tuple(kernel_size)}"
            )
    n, c, h, w = input_size
    p = pool_output_size(h, kernel_size[0], stride[0], padding[0], dilation[0], ceil_mode)
    q = pool_output_size(w, kernel_size[1], stride[1], padding[1], dilation[1], ceil_mode)
    if p < 1 or q < 1:
        raise RuntimeError(
            f"Given input size: ({c}x{h}x{w}). Calculated output size: ({c}x{p}x{q}). Output size is too small"
        )
    (r, s), (stride_h, stride_w), (pad_h, pad_w) = kernel_size, stride, padding
    if r * s > _INT_MAX:
        raise ValueError(f"a window of more than 2^31 - 1 places is not supported, but got kernel_size=({r}, {s})")
    return PoolGeometry(n, c, h, w, r, s, p, q, stride_h, stride_w, pad_h, pad_w, dilation[0], dilation[1])


def pool_kernel_geometry(*arguments: Any) -> PoolGeometry:
    """pool_geometry of plain sizes, for kernels.

    Raises:
        RuntimeError: PyTorch's errors, naming the argument and its value.
        ValueError: windows that reach further than kernels of any backend count.
    """
    g = pool_geometry(*arguments)
    rows, columns = (
        reach + places * min(stride, reach) + taps * min(dilation, reach)
        for reach, places, stride, taps, dilation in (
            (g.h + g.pad_h, g.p, g.stride_h, g.r, g.dilation_h),
            (g.w + g.pad_w, g.q, g.stride_w, g.s, g.dilation_w),
        )
    )
    if max(rows, columns) > _INT_MAX:
        raise ValueError(
            f"a pool's windows must stay within 2^31 rows and columns, but got input of size {list(arguments[0])}, "
            f"kernel_size={tuple(arguments[1])}, stride={tuple(arguments[2])} and padding={tuple(arguments[3])}"
        )
    return g


def check_depthwise_separable_tensors(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
) -> None:
    """What depthwise_separable_conv2d asks of its tensors beyond the depthwise convolution's geometry.

    Raises:
        RuntimeError: naming the argument and its value.
    """
    op = "depthwise_separable_conv2d"
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Expected 3D (unbatched) or 4D (batched) input to {op}, but got input of size: {list(input.shape)}"
        )
    channels = input.shape[-3]
    first, second = list(depthwise_weight.shape), list(pointwise_weight.shape)
    if len(first) != 4 or first[1] != 1 or channels == 0 or first[0] == 0 or first[0] % channels != 0:
        raise RuntimeError(
            f"{op}: depthwise_weight should be [{channels} * multiplier, 1, R, S] for input of size "
            f"{list(input.shape)}, but got depthwise_weight of size {first}"
        )
    if len(second) != 4 or second[0] == 0 or second[1:] != [first[0], 1, 1]:
        raise RuntimeError(
            f"{op}: pointwise_weight should be [K, {first[0]}, 1, 1] after depthwise_weight of size {first}, "
            f"but got pointwise_weight of size {second}"
        )
    for name, bias, size in (
        ("depthwise_bias", depthwise_bias, first[0]),
        ("pointwise_bias", pointwise_bias, second[0]),
    ):
        if bias is not None and list(bias.shape) != [size]:
            raise RuntimeError(f"{op}: {name} should be [{size}], but got {name} of size {list(bias.shape)}")
    for name, tensor in (
        ("depthwise_weight", depthwise_weight),
        ("pointwise_weight", pointwise_weight),
        ("depthwise_bias", depthwise_bias),
        ("pointwise_bias", pointwise_bias),
    ):
        if tensor is not None and tensor.dtype != input.dtype:
            raise RuntimeError(f"Input type ({input.dtype}) and {name} type ({tensor.dtype}) should be the same")
        if tensor is not None and tensor.device != input.device:
            raise RuntimeError(
                "Expected all tensors to be on the same device, "
                f"but got input on {input.device} and {name} on {tensor.device}"
            )
