"""max_unpool2d's operators: forward and backward.

The forward writes input[p, q] at place indices[p, q] of a plane of zeros; where two name one place the last (p, q)
wins. Its gradient, as PyTorch defines it, reads grad_output at every index, winner or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..dtypes import HALF_DTYPES
from ..geometry import Layout
from .batching import fold, unfold
from .memory import dense, dense_stride, filled, gradient_stride, is_channels_last, layout_of
from .operator import Operator, register_autocast


def check_indices(indices: Tensor, height: int, width: int) -> None:
    """Raises PyTorch's error for an index outside the output, on the CPU.

    On a GPU reading the values would wait for the device; there the kernels write nothing for such an index.
    """
    if indices.device.type != "cpu" or indices.numel() == 0:
        return
    for extreme in torch.aminmax(indices):
        if not 0 <= extreme < height * width:
            raise RuntimeError(
                f"Found an invalid max index: {int(extreme)} (output volumes are of size {height}x{width})"
            )


def check_planes(input_size: Sequence[int], output_size: Sequence[int]) -> None:
    """Refuses planes whose positions, rows or columns the kernels of any backend would not count.

    Raises:
        ValueError: naming their sizes.
    """
    p, q = input_size[2:]
    if p * q > 2**31 - 2 or max(output_size) > 2**31 - 1:
        raise ValueError(
            "max_unpool2d takes planes of up to 2^31 - 2 elements to 2^31 - 1 rows and columns at most, but got "
            f"planes of {p} x {q} to planes of {output_size[0]} x {output_size[1]}"
        )


def _forward_fake(input: Tensor, indices: Tensor, output_size: Sequence[int], backend: str) -> Tensor:
    shape = (*input.shape[:2], *output_size)
    memory_format = layout_of(input).memory_format
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format)


def _forward_run(input: Tensor, indices: Tensor, output_size: Sequence[int], backend: str) -> Tensor:
    check_planes(input.shape, output_size)
    output = _forward_fake(input, indices, output_size, backend)
    check_indices(indices, *output_size)
    if output.numel() == 0 or input.numel() == 0:
        return output.zero_()
    layout = layout_of(input)
    winner = torch.zeros_like(output, dtype=torch.int32)
    kernel = backends.kernels(backend, input.device.type).max_unpool_forward
    kernel(dense(input, layout), dense(indices, layout), winner, output, layout)
    return output


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, indices, _, ctx.backend = inputs
    ctx.input_stride = gradient_stride(input)
    ctx.save_for_backward(indices)


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return max_unpool_backward(grad, indices, ctx.input_stride, ctx.backend), None, None, None


def _forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    input, indices, *parameters = args
    size = info.batch_size
    input, indices = fold(input, in_dims[0], size, 0), fold(indices, in_dims[1], size, 0)
    return unfold(max_unpool_forward(input, indices, *parameters), size, 0)


def _backward_fake(grad_output: Tensor, indices: Tensor, stride: Sequence[int], backend: str) -> Tensor:
    return torch.empty_strided(indices.shape, stride, dtype=grad_output.dtype, device=grad_output.device)


def _backward_run(grad_output: Tensor, indices: Tensor, stride: Sequence[int], backend: str) -> Tensor:
    grad_input = _backward_fake(grad_output, indices, stride, backend)
    if grad_output.numel() == 0 or grad_input.numel() == 0:
        return grad_input.zero_()
    layout = layout_of(grad_input)
    grad_output, indices = dense(grad_output, layout), dense(indices, layout)
    kernel = backends.kernels(backend, grad_output.device.type).max_unpool_backward
    return filled(grad_input, layout, lambda out: kernel(grad_output, indices, out, layout))


def _backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_output, indices, *_ = inputs
    ctx.output_size = grad_output.shape[-2:]
    ctx.save_for_backward(indices)


def _backward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return _scatter(grad, indices, *ctx.output_size), None, None, None


def _scatter(grad: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    """The transpose of reading at indices: adds where they repeat. PyTorch's index_put, as it adds in a fixed order
    (scatter_add does not) and differentiates further; a second derivative through max_unpool2d is no hot path."""
    n, c = grad.shape[:2]
    first = torch.arange(n * c, device=grad.device).view(n, c, 1, 1) * (height * width)
    planes = grad.new_zeros(n * c * height * width)
    places = (indices + first).flatten()
    return planes.index_put((places,), grad.flatten(), accumulate=True).view(n, c, height, width)


def _backward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    grad_output, indices, stride, backend = args
    size = info.batch_size
    grad_output, indices = fold(grad_output, in_dims[0], size, 0), fold(indices, in_dims[1], size, 0)
    n, *rest = indices.shape
    layout = Layout.NHWC if is_channels_last((n // size, *rest), stride) else Layout.NCHW
    grad_input = max_unpool_backward(grad_output, indices, dense_stride(indices.shape, layout), backend)
    return unfold(grad_input, size, 0)


max_unpool_forward: Operator = Operator(
    "max_unpool_forward(Tensor input, Tensor indices, SymInt[2] output_size, str backend) -> Tensor",
    _forward_run,
    _forward_fake,
    _forward_vmap,
    _forward_setup,
    _forward_backward,
    lambda inputs, _, tangents: max_unpool_forward(tangents[0], *inputs[1:]),
)
max_unpool_backward: Operator = Operator(
    "max_unpool_backward(Tensor grad_output, Tensor indices, SymInt[] input_stride, str backend) -> Tensor",
    _backward_run,
    _backward_fake,
    _backward_vmap,
    _backward_setup,
    _backward_backward,
    lambda inputs, _, tangents: max_unpool_backward(tangents[0], *inputs[1:]),
)


def cast_for_autocast(input: Tensor) -> Tensor:
    """What autocast makes of the input on the CPU: float32, as of PyTorch's own. On CUDA it leaves it alone."""
    cast = input.device.type == "cpu" and input.dtype in HALF_DTYPES
    return input.float() if cast else input


register_autocast("max_unpool_forward", "CPU", lambda input, *rest: (cast_for_autocast(input), *rest))
