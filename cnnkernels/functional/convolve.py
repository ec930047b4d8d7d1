"""conv2d's way from a caller's arguments to the operators; depthwise_conv2d takes it too, under its own name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import serving
from ..epilogue import Epilogue
from ..ops.border import add_border
from ..ops.conv import ConvParameters, conv_forward, fake_geometry
from ..ops.conv_epilogue import conv_epilogue_forward
from ..ops.operator import cast_for_autocast
from .arguments import (
    Ints,
    as_pair,
    check_conv_tensors,
    check_epilogue,
    check_groups,
    check_is_tensor,
    sides,
    under_autocast,
)

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
    backend = serving(op, input.device, input.dtype)
    if backend == "reference" or input.numel() == 0:
        if padding_mode != "zeros":
            input, padding = _with_border(op, input, weight, stride, padding, dilation, padding_mode), 0
        output = _reference(input, weight, bias, stride, padding, dilation, groups)  # checks and casts for itself
        if epilogue is None:
            return output
        epilogue = _cast(input.device, epilogue) if under_autocast(input.device) else epilogue
        check_epilogue(op, output, epilogue, output.shape)
        return epilogue.apply(output)
    check_is_tensor(op, "weight", weight)
    if bias is not None:
        check_is_tensor(op, "bias", bias)
    if under_autocast(input.device):
        input, weight, bias = cast_for_autocast(input.device.type, input, weight, bias)
        epilogue = None if epilogue is None else _cast(input.device, epilogue)
    check_conv_tensors(op, input, weight, bias)
    check_groups(op, groups)
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    padded = sides(op, weight.shape[2:], strides, padding, dilations)
    parameters = ConvParameters(strides, padded, dilations, groups, backend, padding_mode)
    batch = input if input.dim() == 4 else input.unsqueeze(0)
    if epilogue is None:
        output = conv_forward(batch, weight, bias, *parameters)
    else:
        g = fake_geometry(batch.shape, weight.shape, parameters)
        size = g.n, g.k, g.p, g.q
        check_epilogue(op, input, epilogue, size if input.dim() == 4 else size[1:])
        if epilogue.residual is not None and batch is not input:
            epilogue = epilogue._replace(residual=epilogue.residual.unsqueeze(0))
        output = conv_epilogue_forward(batch, weight, bias, *epilogue, *parameters)
    return output if input.dim() == 4 else output.squeeze(0)


def _cast(device: torch.device, epilogue: Epilogue) -> Epilogue:
    scale, shift, residual = cast_for_autocast(device.type, *epilogue[:3])
    return epilogue._replace(scale=scale, shift=shift, residual=residual)


def _with_border(
    op: str, input: Tensor, weight: Tensor, stride: Ints, padding: str | Ints, dilation: Ints, padding_mode: str
) -> Tensor:
    """An image with its border, which PyTorch's operator then has not to know of."""
    check_is_tensor(op, "weight", weight)
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    top, bottom, left, right = sides(op, weight.shape[-2:], strides, padding, dilations)
    return add_border(input, (left, right, top, bottom), padding_mode)
