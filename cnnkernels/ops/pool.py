"""max_pool2d's operators: forward, backward, gather, indices.

The forward finds each window's maximum and its place r S + s there (argmax). The backward sends each gradient to its
winner: grad_input[h, w] = sum of grad_output[p, q] over the windows whose winner is (h, w), as a gather over the
windows that cover (h, w). It is linear in grad_output; its transpose, `gather`, reads each winner's place:
output[p, q] = input[winner of (p, q)]. The two are each other's derivative, and the forward's is the backward.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..geometry import Layout, PoolGeometry, argmax_dtype
from .batching import fold, unfold
from .checks import pool_geometry, pool_kernel_geometry
from .memory import dense, dense_stride, filled, gradient_stride, is_channels_last, layout_of
from .operator import Operator

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
    return _forward_outputs(input, pool_geometry(input.shape, *parameters[:-1]))[:2]


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
