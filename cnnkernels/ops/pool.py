"""The operators of max_pool2d, forward, backward, gather and indices, and of max_unpool2d, forward and backward.

The forward finds each window's maximum and its place r S + s there (argmax). The backward sends each gradient to its
winner: grad_input[h, w] = sum of grad_output[p, q] over the windows whose winner is (h, w), as a gather over the
windows that cover (h, w). It is linear in grad_output; its transpose, `gather`, reads each winner's place:
output[p, q] = input[winner of (p, q)]. The two are each other's derivative, and the forward's is the backward.

max_unpool2d's forward writes input[p, q] at place indices[p, q] of a plane of zeros; where two name one place the last
(p, q) wins. Its gradient, as PyTorch defines it, reads grad_output at every index, winner or not.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..dtypes import HALF_DTYPES
from ..geometry import Layout, PoolGeometry, argmax_dtype
from .batching import fold, unfold
from .checks import of_planes, pool_geometry, pool_kernel_geometry
from .memory import dense, dense_stride, filled, gradient_stride, is_channels_last, layout_of
from .operator import Operator, register_autocast

_remembered_geometry = functools.lru_cache(maxsize=4096)(pool_kernel_geometry)


def _geometry(input_size: Sequence[int], parameters: Sequence[Any]) -> PoolGeometry:
    """The geometry of plain sizes, remembered: checking it again would cost more than a small kernel."""
    kernel_size, stride, padding, dilation, ceil_mode, _ = parameters
    sizes = tuple(input_size), tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation)
    return _remembered_geometry(*sizes, ceil_mode)


# Below, for each operator: its fake kernel, its run on plain tensors, its derivative, its batching rule, which folds
# the new axis into N. `parameters` are the schema's last six, (kernel_size, stride, padding, dilation, ceil_mode,
# backend).

PARAMETERS = "int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode, str backend"


def _like(size: Sequence[int], stride: Sequence[int]) -> Layout:
    return Layout.NHWC if is_channels_last(size, stride) else Layout.NCHW


# --- forward: the maximum and its place


def _forward_outputs(input: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor, Layout]:
    layout = layout_of(input)
    shape = (geometry.n, geometry.c, geometry.p, geometry.q)
    memory_format = layout.memory_format
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format)
    place = argmax_dtype(geometry.r, geometry.s)
    argmax = torch.empty(shape, dtype=place, device=input.device, memory_format=memory_format)
    return output, argmax, layout


def _forward_fake(input: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
    return _forward_outputs(input, pool_geometry(of_planes(input.shape), *parameters[:-1]))[:2]


def _forward_run(input: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
    geometry = _geometry(input.shape, parameters)
    output, argmax, layout = _forward_outputs(input, geometry)
    if output.numel() > 0:
        kernel = backends.kernels(parameters[-1], input.device.type).max_pool_forward
        kernel(dense(input, layout), output, argmax, geometry, layout)
    return output, argmax


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, *ctx.parameters = inputs
    ctx.input_like = (input.shape, gradient_stride(input))
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _forward_backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 7
    (argmax,) = ctx.saved_tensors
    return max_pool_backward(grad, argmax, *ctx.input_like, *ctx.parameters), *[None] * 6


def _forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    input, *parameters = args
    size = info.batch_size
    output, argmax = max_pool_forward(fold(input, in_dims[0], size, 0), *parameters)
    return (unfold(output, size, 0)[0], unfold(argmax, size, 0)[0]), (0, 0)


# --- backward: each gradient to its winner


def _backward_fake(
    grad_output: Tensor, argmax: Tensor, size: Sequence[int], stride: Sequence[int], *parameters: Any
) -> Tensor:
    return torch.empty_strided(size, stride, dtype=grad_output.dtype, device=grad_output.device)


def _backward_run(
    grad_output: Tensor, argmax: Tensor, size: Sequence[int], stride: Sequence[int], *parameters: Any
) -> Tensor:
    grad_input = _backward_fake(grad_output, argmax, size, stride, *parameters)
    geometry = _geometry(size, parameters)
    if grad_input.numel() == 0:
        return grad_input
    layout = _like(size, stride)
    grad_output, argmax = dense(grad_output, layout), dense(argmax, layout)
    kernel = backends.kernels(parameters[-1], grad_output.device.type).max_pool_backward
    return filled(grad_input, layout, lambda out: kernel(grad_output, argmax, out, geometry, layout))


def _backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, argmax, _, _, *ctx.parameters = inputs
    ctx.save_for_backward(argmax)


def _backward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (argmax,) = ctx.saved_tensors
    return max_pool_gather(grad, argmax, *ctx.parameters), *[None] * 9


def _backward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    grad_output, argmax, (n, *rest), stride, *parameters = args
    size = info.batch_size
    whole = (size * n, *rest)
    grad_input = max_pool_backward(
        fold(grad_output, in_dims[0], size, 0),
        fold(argmax, in_dims[1], size, 0),
        whole,
        dense_stride(whole, _like((n, *rest), stride)),
        *parameters,
    )
    return unfold(grad_input, size, 0)


# --- gather: what stands at each winner's place


def _gather_fake(input: Tensor, argmax: Tensor, *parameters: Any) -> Tensor:
    memory_format = layout_of(argmax).memory_format
    return torch.empty(argmax.shape, dtype=input.dtype, device=input.device, memory_format=memory_format)


def _gather_run(input: Tensor, argmax: Tensor, *parameters: Any) -> Tensor:
    output = _gather_fake(input, argmax, *parameters)
    geometry = _geometry(input.shape, parameters)
    layout = layout_of(argmax)
    if output.numel() > 0:
        kernel = backends.kernels(parameters[-1], input.device.type).max_pool_gather
        kernel(dense(input, layout), dense(argmax, layout), output, geometry, layout)
    return output


def _gather_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, argmax, *ctx.parameters = inputs
    ctx.input_like = (input.shape, gradient_stride(input))
    ctx.save_for_backward(argmax)


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (argmax,) = ctx.saved_tensors
    return max_pool_backward(grad, argmax, *ctx.input_like, *ctx.parameters), *[None] * 7


def _gather_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    input, argmax, *parameters = args
    size = info.batch_size
    input, argmax = fold(input, in_dims[0], size, 0), fold(argmax, in_dims[1], size, 0)
    return unfold(max_pool_gather(input, argmax, *parameters), size, 0)


# --- indices: PyTorch's flat index h W + w of each winner


def _indices_fake(argmax: Tensor, input_size: Sequence[int], *parameters: Any) -> Tensor:
    memory_format = layout_of(argmax).memory_format
    return torch.empty(argmax.shape, dtype=torch.int64, device=argmax.device, memory_format=memory_format)


def _indices_run(argmax: Tensor, input_size: Sequence[int], *parameters: Any) -> Tensor:
    indices = _indices_fake(argmax, input_size, *parameters)
    geometry = _geometry(input_size, parameters)
    layout = layout_of(argmax)
    if indices.numel() > 0:
        kernel = backends.kernels(parameters[-1], argmax.device.type).max_pool_indices
        kernel(dense(argmax, layout), indices, geometry, layout)
    return indices


def _indices_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    argmax, (n, *rest), *parameters = args
    size = info.batch_size
    return unfold(max_pool_indices(fold(argmax, in_dims[0], size, 0), (size * n, *rest), *parameters), size, 0)


max_pool_forward: Operator = Operator(
    f"max_pool_forward(Tensor input, {PARAMETERS}) -> (Tensor, Tensor)",
    _forward_run,
    _forward_fake,
    _forward_vmap,
    _forward_setup,
    _forward_backward,
    lambda inputs, outputs, tangents: (max_pool_gather(tangents[0], outputs[1], *inputs[1:]), None),
)
max_pool_backward: Operator = Operator(
    "max_pool_backward(Tensor grad_output, Tensor argmax, SymInt[] input_size, SymInt[] input_stride, "
    f"{PARAMETERS}) -> Tensor",
    _backward_run,
    _backward_fake,
    _backward_vmap,
    _backward_setup,
    _backward_backward,
    lambda inputs, _, tangents: max_pool_backward(tangents[0], *inputs[1:]),
)
max_pool_gather: Operator = Operator(
    f"max_pool_gather(Tensor input, Tensor argmax, {PARAMETERS}) -> Tensor",
    _gather_run,
    _gather_fake,
    _gather_vmap,
    _gather_setup,
    _gather_backward,
    lambda inputs, _, tangents: max_pool_gather(tangents[0], *inputs[1:]),
)
max_pool_indices: Operator = Operator(
    f"max_pool_indices(Tensor argmax, SymInt[] input_size, {PARAMETERS}) -> Tensor",
    _indices_run,
    _indices_fake,
    _indices_vmap,
)


# --- max_unpool2d


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


def _unpool_forward_fake(input: Tensor, indices: Tensor, output_size: Sequence[int], backend: str) -> Tensor:
    shape = (*input.shape[:2], *output_size)
    memory_format = layout_of(input).memory_format
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format)


def _unpool_forward_run(input: Tensor, indices: Tensor, output_size: Sequence[int], backend: str) -> Tensor:
    check_planes(input.shape, output_size)
    output = _unpool_forward_fake(input, indices, output_size, backend)
    check_indices(indices, *output_size)
    if output.numel() == 0 or input.numel() == 0:
        return output.zero_()
    layout = layout_of(input)
    winner = torch.zeros_like(output, dtype=torch.int32)
    kernel = backends.kernels(backend, input.device.type).max_unpool_forward
    kernel(dense(input, layout), dense(indices, layout), winner, output, layout)
    return output


def _unpool_forward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, indices, _, ctx.backend = inputs
    ctx.input_stride = gradient_stride(input)
    ctx.save_for_backward(indices)


def _unpool_forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return max_unpool_backward(grad, indices, ctx.input_stride, ctx.backend), None, None, None


def _unpool_forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    input, indices, *parameters = args
    size = info.batch_size
    input, indices = fold(input, in_dims[0], size, 0), fold(indices, in_dims[1], size, 0)
    return unfold(max_unpool_forward(input, indices, *parameters), size, 0)


def _unpool_backward_fake(grad_output: Tensor, indices: Tensor, stride: Sequence[int], backend: str) -> Tensor:
    return torch.empty_strided(indices.shape, stride, dtype=grad_output.dtype, device=grad_output.device)


def _unpool_backward_run(grad_output: Tensor, indices: Tensor, stride: Sequence[int], backend: str) -> Tensor:
    grad_input = _unpool_backward_fake(grad_output, indices, stride, backend)
    if grad_output.numel() == 0 or grad_input.numel() == 0:
        return grad_input.zero_()
    layout = layout_of(grad_input)
    grad_output, indices = dense(grad_output, layout), dense(indices, layout)
    kernel = backends.kernels(backend, grad_output.device.type).max_unpool_backward
    return filled(grad_input, layout, lambda out: kernel(grad_output, indices, out, layout))


def _unpool_backward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_output, indices, *_ = inputs
    ctx.output_size = grad_output.shape[-2:]
    ctx.save_for_backward(indices)


def _unpool_backward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
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


def _unpool_backward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    grad_output, indices, stride, backend = args
    size = info.batch_size
    grad_output, indices = fold(grad_output, in_dims[0], size, 0), fold(indices, in_dims[1], size, 0)
    n, *rest = indices.shape
    layout = Layout.NHWC if is_channels_last((n // size, *rest), stride) else Layout.NCHW
    grad_input = max_unpool_backward(grad_output, indices, dense_stride(indices.shape, layout), backend)
    return unfold(grad_input, size, 0)


max_unpool_forward: Operator = Operator(
    "max_unpool_forward(Tensor input, Tensor indices, SymInt[] output_size, str backend) -> Tensor",
    _unpool_forward_run,
    _unpool_forward_fake,
    _unpool_forward_vmap,
    _unpool_forward_setup,
    _unpool_forward_backward,
    lambda inputs, _, tangents: max_unpool_forward(tangents[0], *inputs[1:]),
)
max_unpool_backward: Operator = Operator(
    "max_unpool_backward(Tensor grad_output, Tensor indices, SymInt[] input_stride, str backend) -> Tensor",
    _unpool_backward_run,
    _unpool_backward_fake,
    _unpool_backward_vmap,
    _unpool_backward_setup,
    _unpool_backward_backward,
    lambda inputs, _, tangents: max_unpool_backward(tangents[0], *inputs[1:]),
)


def cast_unpool_for_autocast(device: str, input: Tensor) -> tuple[Tensor]:
    """What autocast makes of the input on the CPU: float32, as of PyTorch's own. On CUDA it leaves it alone."""
    return (input.float() if device == "cpu" and input.dtype in HALF_DTYPES else input,)


register_autocast("max_unpool_forward", 1, cast_unpool_for_autocast)
