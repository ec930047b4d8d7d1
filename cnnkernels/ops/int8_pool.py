"""The operators int8_max_pool and int8_avg_pool, of int8 or uint8 images.

    max   the largest of a window's places inside the input, exact
    avg   clamp(rint(float(sum of (x - zero_point)) / float(divisor)) + zero_point)

The sum is over the places inside the input, and exact; padding stands for the zero point and adds nothing. Images are
channels_last in memory, any others are copied so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..geometry import PoolGeometry
from .batching import fold, unfold
from .checks import of_planes, pool_geometry, pool_kernel_geometry
from .operator import Operator

_geometry = functools.lru_cache(maxsize=4096)(pool_kernel_geometry)


def _reached(start: Tensor, size: int, places: int) -> Tensor:
    """How many of the places from `start` on lie below `size`, and not below 0."""
    return (start + places).clamp(max=size) - start.clamp(min=0)


class Reference:
    """The functions of a backend by PyTorch's operators: what every kernel must equal bit for bit."""

    @staticmethod
    def int8_max_pool(input: Tensor, output: Tensor, geometry: PoolGeometry) -> None:
        output.copy_(_windows(input, geometry, torch.iinfo(input.dtype).min).amax((-2, -1)))

    @staticmethod
    def int8_avg_pool(
        input: Tensor,
        output: Tensor,
        geometry: PoolGeometry,
        zero_point: int,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        g, device = geometry, input.device
        sums = _windows(input.double() - zero_point, g, 0).sum((-2, -1))
        h, w = (
            torch.arange(n, device=device) * step - pad
            for n, step, pad in ((g.p, g.stride_h, g.pad_h), (g.q, g.stride_w, g.pad_w))
        )
        if divisor_override is not None:
            divisor = torch.full((1, 1), divisor_override, device=device)
        elif count_include_pad:
            rows, columns = (h + g.r).clamp(max=g.h + g.pad_h) - h, (w + g.s).clamp(max=g.w + g.pad_w) - w
            divisor = rows[:, None] * columns
        else:
            divisor = _reached(h, g.h, g.r)[:, None] * _reached(w, g.w, g.s)
        limits = torch.iinfo(input.dtype)
        steps = torch.round(sums.float() / divisor.float())
        output.copy_(steps.clamp(limits.min - zero_point, limits.max - zero_point) + zero_point)


def _windows(input: Tensor, g: PoolGeometry, outside: int) -> Tensor:
    """[n, c, p, q, r, s]: every window's places, those outside the input filled."""
    below = max(0, (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h + 1 - g.h - g.pad_h)
    right = max(0, (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w + 1 - g.w - g.pad_w)
    padded = torch.nn.functional.pad(input.double(), (g.pad_w, right, g.pad_h, below), value=outside)
    n, c, h, w = padded.stride()
    size = g.n, g.c, g.p, g.q, g.r, g.s
    return padded.as_strided(size, (n, c, h * g.stride_h, w * g.stride_w, h * g.dilation_h, w * g.dilation_w))


def _kernels(backend: str, device: torch.device) -> Any:
    return Reference if backend == "reference" else backends.kernels(backend, device.type)


# `parameters`: kernel_size, stride, padding, dilation, ceil_mode

PARAMETERS = "int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode"


def _fake(input: Tensor, *rest: Any) -> Tensor:
    g = pool_geometry(of_planes(input.shape), *rest[:5])
    size = g.n, g.c, g.p, g.q
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


def _run(name: str) -> Callable[..., Tensor]:
    def run(input: Tensor, *rest: Any) -> Tensor:
        g = _geometry(tuple(input.shape), *(tuple(pair) for pair in rest[:4]), rest[4])
        size = g.n, g.c, g.p, g.q
        output = torch.empty(size, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
        if output.numel() > 0:
            kernel = getattr(_kernels(rest[-1], input.device), name)
            kernel(input.contiguous(memory_format=torch.channels_last), output, g, *rest[5:-1])
        return output

    return run


def _vmap(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    def vmap(info: Any, in_dims: tuple[Any, ...], input: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return unfold(operator(fold(input, in_dims[0], info.batch_size, 0), *rest), info.batch_size, 0)

    return vmap


int8_max_pool: Operator = Operator(
    f"int8_max_pool(Tensor input, {PARAMETERS}, str backend) -> Tensor",
    _run("int8_max_pool"),
    _fake,
    _vmap(lambda *args: int8_max_pool(*args)),
)
int8_avg_pool: Operator = Operator(
    # a window may be as large as the image, and so be a symbol
    f"int8_avg_pool(Tensor input, {PARAMETERS.replace('int[] kernel', 'SymInt[] kernel')}, int zero_point, "
    "bool count_include_pad, int? divisor_override, str backend) -> Tensor",
    _run("int8_avg_pool"),
    _fake,
    _vmap(lambda *args: int8_avg_pool(*args)),
)
