"""conv_transpose2d's way from a caller's arguments to its operator, which conv_transpose1d takes too."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import serving
from ..epilogue import Epilogue
from ..ops.conv import ConvParameters
from ..ops.conv_transpose import conv_transpose_forward, output_size
from ..ops.operator import cast_for_autocast
from .arguments import (
    Ints,
    as_axes,
    check_bias,
    check_dimensions,
    check_epilogue,
    check_groups,
    check_is_tensor,
    check_like,
    under_autocast,
)
from .planes import as_planes, from_planes, of_planes, on_planes


def transpose(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    epilogue: Epilogue,
) -> Tensor:
    """A transposed convolution of `rank` spatial axes."""
    op = f"conv_transpose{rank}d"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        given = input, weight, bias, stride, padding, output_padding, groups, dilation, epilogue
        backend = backend.choose(given, functools.partial(transpose, rank))
    if backend == "reference" or input.numel() == 0:
        reference: Any = getattr(torch.nn.functional, op)
        output = reference(input, weight, bias, stride, padding, output_padding, groups, dilation)
        if epilogue.is_empty:
            return output  # type: ignore[no-any-return]
        epilogue = _cast(input.device, epilogue) if under_autocast(input.device) else epilogue
        check_epilogue(op, output, epilogue, output.shape, rank)
        return epilogue.apply(output, rank)
    check_is_tensor(op, "weight", weight)
    if bias is not None:
        check_is_tensor(op, "bias", bias)
    if under_autocast(input.device):
        input, weight, bias = cast_for_autocast(input.device.type, input, weight, bias)
        epilogue = _cast(input.device, epilogue)
    if isinstance(padding, str):
        raise TypeError(f"{op}(): argument 'padding' must be tuple of ints, not str, but got padding={padding!r}")
    check_dimensions(op, input, weight, rank)
    check_like("weight", weight, input)
    check_groups(op, groups)
    named = ("stride", stride), ("padding", padding), ("output_padding", output_padding), ("dilation", dilation)
    steps, pads, more, apart = (as_axes(op, name, value, rank) for name, value in named)
    _check_numbers(steps, pads, more, apart, groups)
    _check_channels(input, weight, bias, groups, rank)
    if any(extra >= max(step, d) for extra, step, d in zip(more, steps, apart, strict=True)):
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding={more}, stride={steps} and dilation={apart}"
        )
    sides = tuple(side for pad, extra in zip(pads, more, strict=True) for side in (pad, pad - extra))
    parameters = of_planes(ConvParameters(steps, sides, apart, groups, backend))
    planes, filters = as_planes(input, rank), as_planes(weight, rank)
    size = output_size(planes.shape, filters.shape, parameters)
    if any(extent < 1 for extent in size[2:]):
        raise RuntimeError(
            f"Given input size per channel: ({' x '.join(map(str, planes.shape[2:]))}). Calculated output size per "
            f"channel: ({' x '.join(map(str, size[2:]))}). Output size is too small"
        )
    if not epilogue.is_empty:
        of_output = [*size[:2], *size[-rank:]]
        check_epilogue(op, input, epilogue, of_output if input.dim() == rank + 2 else of_output[1:], rank)
    output = conv_transpose_forward(planes, filters, bias, *on_planes(epilogue, rank), *parameters)
    return from_planes(output, input, rank)


def _cast(device: torch.device, epilogue: Epilogue) -> Epilogue:
    scale, shift, residual = cast_for_autocast(device.type, *epilogue[:3])
    return epilogue._replace(scale=scale, shift=shift, residual=residual)


def _check_numbers(
    stride: Sequence[int], padding: Sequence[int], output_padding: Sequence[int], dilation: Sequence[int], groups: int
) -> None:
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported, but got groups={groups}")
    for name, values, least, kind in (
        ("padding", padding, 0, "negative"),
        ("output_padding", output_padding, 0, "negative"),
        ("stride", stride, 1, "non-positive"),
        ("dilation", dilation, 1, "non-positive"),
    ):
        if any(value < least for value in values):
            raise RuntimeError(f"{kind} {name} is not supported, but got {name}={tuple(values)}")


def _check_channels(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, rank: int) -> None:
    of_input, of_groups, *taps = weight.shape
    text = list(weight.shape)
    for wrong, wanted in ((of_input < groups, "at least"), (of_input % groups != 0, "divisible by")):
        if wrong:
            raise RuntimeError(
                f"Given groups={groups}, expected weight to be {wanted} {groups} at dimension 0, "
                f"but got weight of size {text} instead"
            )
    given = f"Given transposed=1, weight of size {text}"
    if input.shape[-rank - 1] != of_input:
        raise RuntimeError(
            f"{given}, expected input{list(input.shape)} to have {of_input} channels, but got "
            f"{input.shape[-rank - 1]} channels instead"
        )
    if bias is not None:
        check_bias(given, bias, of_groups * groups, input)
    if of_groups == 0 or any(count < 1 for count in taps):
        raise RuntimeError(f"expected weight to have no empty axis, but got weight of size {text}")
