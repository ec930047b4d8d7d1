"""The INT8 operators by PyTorch's own operators, on any device: what every kernel must equal bit for bit.

Functions of `cnnkernels.native.NativeKernels`. Integers are multiplied and added in fp64, which is exact: a product
is at most 255 255, and the operators refuse sums that could pass 2^31.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..activation import activate
from ..geometry import ConvGeometry
from .epilogue import Int8Epilogue


def int8_gemm(a: Tensor, b: Tensor, output: Tensor, epilogue: Int8Epilogue) -> None:
    """output [M, N] = the epilogue of a [M, K] times b [K, N], of any strides."""
    rows = _shifted(a, epilogue.zero_point_a, (-1, 1))
    columns = _shifted(b, epilogue.zero_point_b, (1, -1))
    finish(rows @ columns, output, epilogue)


def int8_conv(input: Tensor, weight: Tensor, output: Tensor, geometry: ConvGeometry, epilogue: Int8Epilogue) -> None:
    """output [N, K, P, Q] = the epilogue of the convolution; padding stands for zero_point_a."""
    g = geometry
    below = (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h + 1 - g.h - g.pad_h
    right = (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w + 1 - g.w - g.pad_w
    shifted = _shifted(input, epilogue.zero_point_a, (1, 1, 1, 1))
    padded = torch.nn.functional.pad(shifted, (g.pad_w, right, g.pad_h, below))
    steps = (g.stride_h, g.stride_w), 0, (g.dilation_h, g.dilation_w), g.groups
    sums = torch.nn.functional.conv2d(padded, weight.double(), None, *steps)
    # A library that transforms its operands (Winograd, FFT) is off by less than a half: these are integers.
    finish(sums.round().movedim(1, -1), output.movedim(1, -1), epilogue)


def int8_weight_only_linear(input: Tensor, weight: Tensor, output: Tensor, epilogue: Int8Epilogue) -> None:
    """output [M, N] = the epilogue of input [M, K], floating, times weight [N, K]; sums are PyTorch's, in fp32."""
    finish(input.float() @ weight.float().t(), output, epilogue)


def widened_linear(input: Tensor, weight: Tensor, epilogue: Int8Epilogue) -> Tensor:
    """[M, N]: the same by PyTorch's product with a weight that is widened and scaled first; input and a floating
    residual may have gradients."""
    e, device = epilogue, input.device
    widened = (weight.float() * _fp32(e.scale_b, (-1, 1), device)).to(input.dtype)
    output = torch.nn.functional.linear(input, widened, None if e.bias is None else e.bias.to(input.dtype))
    if e.residual is not None:
        residual = e.residual
        if not residual.is_floating_point():
            shifted = (residual.int() - e.residual_zero_point).float()
            residual = (shifted * _fp32(e.residual_scale, (), device)).to(output.dtype)
        output = output + residual
    return activate(output, e.activation, e.negative_slope)


def finish(sums: Tensor, output: Tensor, epilogue: Int8Epilogue) -> None:
    """Writes the epilogue of the sums [..., columns], integers of any type or fp32; only those of [rows, columns] may
    have numbers for each row."""
    if output.dtype is torch.int32:
        output.copy_(sums)
        return
    e, device = epilogue, output.device
    x = sums.float() * (_fp32(e.scale_a, (-1, 1), device) * _fp32(e.scale_b, (-1,), device))
    if e.bias is not None:
        x = x + e.bias
    if e.residual is not None:
        residual = e.residual if e.residual.dim() == 2 else e.residual.movedim(1, -1)
        if residual.is_floating_point():
            x = x + residual.float()
        else:
            shifted = (residual.int() - e.residual_zero_point).float()
            x = x + shifted * _fp32(e.residual_scale, (), device)
    x = _activate(x, e.activation, float(_fp32(e.negative_slope, (), torch.device("cpu"))))
    if not output.is_floating_point():
        limits = torch.iinfo(output.dtype)
        x = torch.round(x * (1 / _fp32(e.out_scale, (), device)))
        x = x.nan_to_num(0.0, torch.inf, -torch.inf)
        x = x.clamp(limits.min - e.out_zero_point, limits.max - e.out_zero_point) + e.out_zero_point
    output.copy_(x)


def _shifted(values: Tensor, zero_point: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    if isinstance(zero_point, Tensor):
        return values.double() - zero_point.double().reshape(shape)
    return values.double() - zero_point


def _fp32(value: float | Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A number rounded to fp32, or a tensor; one element goes with any shape."""
    if not isinstance(value, Tensor):
        return torch.full((), value, dtype=torch.float32, device=device)
    return value.reshape(()) if value.numel() == 1 else value.reshape(shape)


def _activate(x: Tensor, activation: str, slope: float) -> Tensor:
    """csrc/common/activation.h operation by operation; PyTorch's own functions round otherwise on some devices."""
    if activation == "relu":
        return torch.where(x < 0, 0.0, x)
    if activation == "relu6":
        return torch.where(x < 0, 0.0, torch.where(x > 6, 6.0, x))
    if activation == "leaky_relu":
        return torch.where(x > 0, x, x * slope)
    if activation == "silu":
        return x / (1 + torch.exp(-x))
    if activation == "gelu":
        return 0.5 * x * (1 + torch.erf(x * 0.7071067811865476))
    if activation == "hardswish":
        moved = x + 3
        clipped = torch.where(moved < 0, 0.0, torch.where(moved > 6, 6.0, moved))
        return x * clipped / x.new_full((), 6)  # on a GPU, PyTorch divides by a number by multiplying
    return x
