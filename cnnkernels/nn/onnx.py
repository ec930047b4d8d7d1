"""INT8 layers in an export to ONNX: QuantizeLinear and DequantizeLinear around PyTorch's own operators (QDQ), which
ONNX's runtimes fuse to products of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..activation import activate

_VERSION = 18  # of ONNX's operators: what torch.onnx.export writes, before it converts to the one asked for


def _numbers(tensor: Tensor, scale: float | Tensor, zero_point: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=torch.float32, device=tensor.device)
    return scale, torch.full_like(scale, zero_point, dtype=dtype)


def quantize(input: Tensor, scale: float, zero_point: int, dtype: torch.dtype = torch.int8) -> Tensor:
    """Rounds half to even, as the kernels do; it divides where they multiply by the reciprocal."""
    inputs = input.float(), *_numbers(input, scale, zero_point, dtype)
    return torch.onnx.ops.symbolic("QuantizeLinear", inputs, {}, dtype=dtype, shape=input.shape, version=_VERSION)


def dequantize(input: Tensor, scale: float | Tensor, zero_point: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of one scale, or of one for each entry of the first axis."""
    inputs = input, *_numbers(input, scale, zero_point, input.dtype)
    attributes: Any = {"axis": 0} if isinstance(scale, Tensor) else {}
    made = torch.onnx.ops.symbolic(
        "DequantizeLinear", inputs, attributes, dtype=torch.float32, shape=input.shape, version=_VERSION
    )
    return made.to(dtype)


def layer(
    layer: Any, input: Tensor, residual: Tensor | None, product: Callable[[Tensor, Tensor, Tensor | None], Tensor]
) -> Tensor:
    """An INT8 layer around `product` of floating input, weight and bias.

    Raises:
        NotImplementedError: its input is quantized by the scale of each row, which ONNX cannot say.
    """
    bias = layer._buffers["bias"]
    weight = dequantize(layer._integers, layer.weight_scale, 0)
    given = input
    if layer.input_scale is not None:
        code = layer.input_scale, layer.input_zero_point
        given = dequantize(quantize(input, *code) if input.is_floating_point() else input, *code)
    elif layer.mode == "dynamic":
        raise NotImplementedError("mode 'dynamic' gives each row a scale of its own, which ONNX has no operator for")
    y = product(given.float(), weight, bias)
    if residual is not None:
        if not residual.is_floating_point():
            residual = dequantize(residual, layer.residual_scale, layer.residual_zero_point)
        y = y + residual.float()
    y = activate(y, layer.activation, layer.negative_slope)
    if layer.out_scale is not None:
        return quantize(y, layer.out_scale, layer.out_zero_point, layer.out_dtype or torch.int8)
    return y.to(layer.out_dtype or (input.dtype if input.is_floating_point() else torch.float32))


def pool(input: Tensor, zero_point: int, pooled: Callable[[Tensor], Tensor]) -> Tensor:
    """Of codes less the zero point, as a step of 1 gives them: their average is rounded as the kernels round it."""
    return quantize(pooled(dequantize(input, 1.0, zero_point)), 1.0, zero_point, input.dtype)
