"""The operators quantize, quantize_dynamic and dequantize.

    q = clamp(rint(x (1 / scale)) + zero_point)      ties to even
    x = (q - zero_point) scale

in fp32, each operation rounded by itself, fp64 narrowed to fp32 first; a product that is NaN gives the zero point. A
scale holds for a tensor, for each channel
of one axis, or for each token, that is, for each row along the last axis. A tensor keeps its memory where that is dense
(contiguous or channels_last), and in memory it is [outer, groups, inner] with a scale for each group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..geometry import Layout
from .memory import dense, layout_of
from .operator import Operator

Numbers = tuple[Tensor | None, float, Tensor | None, int]


def _layout(input: Tensor, granularity: str) -> Layout:
    return layout_of(input) if input.dim() == 4 and granularity != "token" else Layout.NCHW


def _empty(input: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
    return torch.empty(input.shape, dtype=dtype, device=input.device, memory_format=layout.memory_format)


def _extents(size: Sequence[int], layout: Layout, granularity: str, axis: int) -> tuple[int, int, int]:
    """Outer, groups, inner of a dense tensor as it lies in memory."""
    if granularity == "tensor":
        return 1, 1, math.prod(size)
    if granularity == "token":
        return 1, math.prod(size[:-1]), size[-1]
    order = (0, 2, 3, 1) if layout is Layout.NHWC else tuple(range(len(size)))
    inside = [size[i] for i in order]
    place = order.index(axis)
    return math.prod(inside[:place]), inside[place], math.prod(inside[place + 1 :])


def _grouped(tensor: Tensor, layout: Layout, extents: tuple[int, int, int]) -> Tensor:
    """A view of a dense tensor's memory."""
    memory = tensor.permute(0, 2, 3, 1) if layout is Layout.NHWC else tensor
    return memory.view(extents)


def _of_groups(tensor: Tensor | None, number: Any, groups: int) -> Any:
    """A number for all groups, or a tensor of one for each."""
    if tensor is None:
        return number
    return tensor.expand(groups).contiguous()


def _convert(
    kernel: Callable[..., None], input: Tensor, output: Tensor, layout: Layout, numbers: Numbers, by: tuple[str, int]
) -> None:
    scale, scale_number, zero_point, zero_point_number = numbers
    extents = _extents(input.shape, layout, *by)
    if extents[1] > 2**31 - 1:
        raise ValueError(f"quantize: more than 2^31 - 1 groups, {extents[1]}, of an input of size {list(input.shape)}")
    kernel(
        _grouped(dense(input, layout) if input.dim() == 4 else input.contiguous(), layout, extents),
        _grouped(output, layout, extents),
        _of_groups(scale, scale_number, extents[1]),
        _of_groups(zero_point, zero_point_number, extents[1]),
    )


# --- the reference


def dynamic_scale(largest: Tensor) -> Tensor:
    """The scales that make largest magnitudes 127, within [2^-126, 2^126], where they and their inverses are normal
    numbers; 1 for 0. Only an infinity goes beyond."""
    # by a tensor: a division by a number may be a multiplication by its reciprocal
    scale = largest / torch.full_like(largest, 127.0)
    return torch.where(largest == 0, 1.0, scale.clamp(2.0**-126, 2.0**126))


def _reference_round(x: Tensor, output: Tensor, scale: Tensor, zero_point: int | Tensor) -> None:
    limits = torch.iinfo(output.dtype)
    steps = (x * (1 / scale)).round_().nan_to_num_(0.0, torch.inf, -torch.inf)
    output.copy_(steps.clamp_(limits.min - zero_point, limits.max - zero_point).add_(zero_point))


def _along_groups(value: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    return value.view(-1, 1) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=device)


class Reference:
    """The functions of a backend by PyTorch's operators: what every kernel must equal bit for bit."""

    @staticmethod
    def quantize(
        input: Tensor, output: Tensor, scale: float | Tensor, zero_point: int | Tensor, dynamic: bool = False
    ) -> None:
        x = input.float()
        if dynamic:
            magnitude = x.abs().nan_to_num_(0.0, torch.inf).amax((0, 2))
            scale.copy_(dynamic_scale(magnitude))
        shift = _along_groups(zero_point, input.device, torch.int32)
        _reference_round(x, output, _along_groups(scale, input.device, torch.float32), shift)

    @staticmethod
    def dequantize(input: Tensor, output: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> None:
        shifted = input.int() - _along_groups(zero_point, input.device, torch.int32)
        output.copy_(shifted.float() * _along_groups(scale, input.device, torch.float32))


def _kernels(backend: str, device: torch.device) -> Any:
    return Reference if backend == "reference" else backends.kernels(backend, device.type)


# --- the operators. `granularity` is "tensor", "channel" (of `axis`) or "token".

NUMBERS = "Tensor? scale, float scale_number, Tensor? zero_point, int zero_point_number, str granularity, int axis"


def _each(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The batching rule: a call for each sample, as a batch may have no axis of the groups' own to go into."""

    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        results = [
            operator(*(arg if axis is None else arg.select(axis, i) for arg, axis in zip(args, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])

    return vmap


def _quantize_fake(input: Tensor, *rest: Any) -> Tensor:
    granularity, dtype = rest[4], rest[6]
    return _empty(input, _layout(input, granularity), dtype)


def _quantize_run(input: Tensor, *rest: Any) -> Tensor:
    output = _quantize_fake(input, *rest)
    if output.numel() > 0:
        kernel = _kernels(rest[-1], input.device).quantize
        _convert(kernel, input, output, _layout(input, rest[4]), rest[:4], rest[4:6])
    return output


def _dynamic_fake(input: Tensor, granularity: str, axis: int, backend: str) -> tuple[Tensor, Tensor]:
    layout = _layout(input, granularity)
    groups = _extents(input.shape, layout, granularity, axis)[1]
    scale = torch.empty(groups, dtype=torch.float32, device=input.device)
    return _empty(input, layout, torch.int8), scale


def _dynamic_run(input: Tensor, granularity: str, axis: int, backend: str) -> tuple[Tensor, Tensor]:
    output, scale = _dynamic_fake(input, granularity, axis, backend)
    if output.numel() == 0:
        return output, scale.fill_(1.0)
    kernel = _kernels(backend, input.device).quantize

    def dynamic(input: Tensor, output: Tensor, *_: Any) -> None:
        kernel(input, output, scale, 0, True)

    _convert(dynamic, input, output, _layout(input, granularity), (None, 1.0, None, 0), (granularity, axis))
    return output, scale


def _dequantize_run(input: Tensor, *rest: Any) -> Tensor:
    output = _quantize_fake(input, *rest)
    if output.numel() > 0:
        kernel = _kernels(rest[-1], input.device).dequantize
        _convert(kernel, input, output, _layout(input, rest[4]), rest[:4], rest[4:6])
    return output


quantize: Operator = Operator(
    f"quantize(Tensor input, {NUMBERS}, ScalarType dtype, str backend) -> Tensor",
    _quantize_run,
    _quantize_fake,
    _each(lambda *args: quantize(*args)),
)
quantize_dynamic: Operator = Operator(
    "quantize_dynamic(Tensor input, str granularity, int axis, str backend) -> (Tensor, Tensor)",
    _dynamic_run,
    _dynamic_fake,
    _each(lambda *args: quantize_dynamic(*args)),
)
dequantize: Operator = Operator(
    f"dequantize(Tensor input, {NUMBERS}, ScalarType dtype, str backend) -> Tensor",
    _dequantize_run,
    _quantize_fake,
    _each(lambda *args: dequantize(*args)),
)
