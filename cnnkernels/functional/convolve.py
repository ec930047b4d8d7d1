"""conv2d's way from checked arguments to the kernels; depthwise_conv2d takes it too, under its own name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import serving
from ..epilogue import Epilogue
from ..ops import conv as _conv2d
from ..ops.border import add_border
from ..ops.conv_epilogue import check_epilogue, epilogue_conv2d
from .arguments import Ints, as_pair, check_conv_tensors, check_is_tensor, named_padding, under_autocast

_reference: Any = torch.nn.functional.conv2d  # its annotations know fewer kinds of sequence than it takes


def convolve(
    op: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    epilogue: Epilogue | None = None,
    padding_mode: str = "zeros",
) -> Tensor:
    """conv2d, under the name that its errors give it."""
    if not isinstance(input, Tensor):
        check_is_tensor(op, "input", input)
    device = input.device
    backend = serving(op, device, input.dtype)
    if backend == "reference" or input.numel() == 0:
        if padding_mode != "zeros":
            check_is_tensor(op, "weight", weight)
            top, bottom, left, right = _sides(op, weight, stride, padding, dilation)
            input, padding = add_border(input, (left, right, top, bottom), padding_mode), 0
        output = _reference(input, weight, bias, stride, padding, dilation, groups)  # checks and casts for itself
        if epilogue is None:
            return output
        epilogue = _cast_for_autocast(device, epilogue)
        check_epilogue(op, output, epilogue, output.shape)
        return epilogue.apply(output)
    check_is_tensor(op, "weight", weight)
    if bias is not None:
        check_is_tensor(op, "bias", bias)
    if under_autocast(device):
        input, weight, bias = _conv2d.cast_for_autocast(device.type, input, weight, bias)
        if epilogue is not None:
            epilogue = _cast_for_autocast(device, epilogue)
    check_conv_tensors(op, input, weight, bias)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{op}(): argument 'groups' must be int, but got groups={groups!r}")
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    sides = _sides(op, weight, stride, padding, dilation)
    parameters: tuple[Any, ...] = (strides, sides, dilations, groups, backend)
    if padding_mode != "zeros":
        parameters = (*parameters, padding_mode)
    if epilogue is not None:
        return epilogue_conv2d(op, input, weight, bias, epilogue, parameters)
    if input.dim() == 4:
        return _conv2d.conv_forward(input, weight, bias, *parameters)
    return _conv2d.conv_forward(input.unsqueeze(0), weight, bias, *parameters).squeeze(0)


def _sides(op: str, weight: Tensor, stride: Ints, padding: str | Ints, dilation: Ints) -> tuple[int, int, int, int]:
    """(top, bottom, left, right)."""
    if isinstance(padding, str):
        strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
        return named_padding(padding, weight.shape[-2:], strides, dilations)
    rows, columns = as_pair(op, "padding", padding)
    return rows, rows, columns, columns


def _cast_for_autocast(device: torch.device, epilogue: Epilogue) -> Epilogue:
    if not under_autocast(device):
        return epilogue
    scale, shift, residual = _conv2d.cast_for_autocast(device.type, *epilogue[:3])
    return epilogue._replace(scale=scale, shift=shift, residual=residual)
