"""conv2d's way from a caller's arguments to the operators, which depthwise_conv2d and conv1d take too."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ..backends import serving
from ..epilogue import Epilogue
from ..ops.border import add_border
from ..ops.checks import conv_geometry
from ..ops.conv import ConvParameters, conv_forward, fake_geometry
from ..ops.conv_epilogue import conv_epilogue_forward
from ..ops.operator import cast_for_autocast
from .arguments import (
    Ints,
    as_axes,
    check_conv_tensors,
    check_epilogue,
    check_groups,
    check_is_tensor,
    sides,
    under_autocast,
)
from .planes import as_planes, from_planes, of_planes, on_planes

# Their annotations know fewer kinds of sequence than they take.
_REFERENCES: dict[int, Any] = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}


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
    rank: int = 2,
) -> Tensor:
    """A convolution of `rank` spatial axes, under the name that its errors give it."""
    if not isinstance(input, Tensor):
        check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        given = input, weight, bias, stride, padding, dilation, groups, epilogue, padding_mode, rank
        backend = backend.choose(given, functools.partial(convolve, op))
    if backend == "reference" or input.numel() == 0:
        if padding_mode != "zeros" or padding == "causal":
            input = _with_border(op, input, weight, stride, padding, dilation, padding_mode, rank)
            padding = 0
        output = _REFERENCES[rank](input, weight, bias, stride, padding, dilation, groups)  # checks, casts for itself
        if epilogue is None:
            return output  # type: ignore[no-any-return]
        epilogue = _cast(input.device, epilogue) if under_autocast(input.device) else epilogue
        check_epilogue(op, output, epilogue, output.shape, rank)
        return epilogue.apply(output, rank)
    check_is_tensor(op, "weight", weight)
    if bias is not None:
        check_is_tensor(op, "bias", bias)
    if under_autocast(input.device):
        input, weight, bias = cast_for_autocast(input.device.type, input, weight, bias)
        epilogue = None if epilogue is None else _cast(input.device, epilogue)
    check_conv_tensors(op, input, weight, bias, rank)
    if type(groups) is not int:
        check_groups(op, groups)
    strides, dilations = as_axes(op, "stride", stride, rank), as_axes(op, "dilation", dilation, rank)
    padded = sides(op, weight.shape[2:], strides, padding, dilations)
    parameters = ConvParameters(strides, padded, dilations, groups, backend, padding_mode)
    if rank == 1:  # PyTorch's errors of a row, before it is one of planes
        batch = input.shape if input.dim() == 3 else (1, *input.shape)
        conv_geometry(batch, weight.shape, strides, padded, dilations, groups, padding_mode)
        parameters = of_planes(parameters)
    planes, filters = as_planes(input, rank), as_planes(weight, rank)
    if epilogue is not None:
        g = fake_geometry(planes.shape, filters.shape, parameters)
        size = (g.n, g.k, g.p, g.q) if rank == 2 else (g.n, g.k, g.q)
        check_epilogue(op, input, epilogue, size if input.dim() == rank + 2 else size[1:], rank)
        output = conv_epilogue_forward(planes, filters, bias, *on_planes(epilogue, rank), *parameters)
    else:
        output = conv_forward(planes, filters, bias, *parameters)
    return output if output.dim() == input.dim() else from_planes(output, input, rank)


def _cast(device: torch.device, epilogue: Epilogue) -> Epilogue:
    scale, shift, residual = cast_for_autocast(device.type, *epilogue[:3])
    return epilogue._replace(scale=scale, shift=shift, residual=residual)


def _with_border(
    op: str,
    input: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    padding_mode: str,
    rank: int,
) -> Tensor:
    """An image with its border, which PyTorch's operator then has not to know of."""
    check_is_tensor(op, "weight", weight)
    strides, dilations = as_axes(op, "stride", stride, rank), as_axes(op, "dilation", dilation, rank)
    around = sides(op, weight.shape[-rank:], strides, padding, dilations)
    last_first = [side for axis in range(2 * rank - 2, -1, -2) for side in around[axis : axis + 2]]
    if padding_mode == "zeros":
        return torch.nn.functional.pad(input, last_first)
    if rank == 2:
        return add_border(input, last_first, padding_mode)
    return add_border(input.unsqueeze(-2), [*last_first, 0, 0], padding_mode).squeeze(-2)
