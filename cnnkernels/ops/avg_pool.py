"""The operators of avg_pool2d and of adaptive_avg_pool2d, forward and backward.

The forward is the mean of each window, or of each bin, linear in its input; the backward is its transpose: every
element gathers grad_output / divisor of the windows that hold it. So each is the other's derivative, of any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..geometry import Layout, PoolGeometry
from .batching import fold, unfold
from .checks import adaptive_pool_geometry, of_planes, pool_geometry, pool_kernel_geometry
from .memory import dense, dense_stride, filled, gradient_stride, is_channels_last, layout_of
from .operator import Operator


def _like(size: Sequence[int], stride: Sequence[int]) -> Layout:
    return Layout.NHWC if is_channels_last(size, stride) else Layout.NCHW


class _Average:
    """The two operators of one kind of averages.

    Args:
        name: `name`_forward and `name`_backward are the operators, and a backend's kernels.
        schema: of the parameters that say where windows lie.
        geometry: from an input's size and the parameters, which may be symbols, to the checked geometry.
        kernel_geometry: the same of plain sizes, as kernels take it.
        rest: the parameters that kernels take beside the geometry.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        geometry: Callable[..., PoolGeometry],
        kernel_geometry: Callable[..., PoolGeometry],
        rest: slice,
    ) -> None:
        self._name, self._geometry, self._rest = name, geometry, rest
        self._remembered = functools.lru_cache(maxsize=4096)(kernel_geometry)
        self.forward = Operator(
            f"{name}_forward(Tensor input, {schema}, str backend) -> Tensor",
            self._forward_run,
            self._forward_fake,
            self._forward_vmap,
            self._forward_setup,
            self._forward_backward,
            lambda inputs, _, tangents: self.forward(tangents[0], *inputs[1:]),
        )
        self.backward = Operator(
            f"{name}_backward(Tensor grad_output, SymInt[] input_size, SymInt[] input_stride, {schema}, str backend) "
            "-> Tensor",
            self._backward_run,
            self._backward_fake,
            self._backward_vmap,
            self._backward_setup,
            self._backward_backward,
            lambda inputs, _, tangents: self.backward(tangents[0], *inputs[1:]),
        )

    def _launch(
        self, direction: str, source: Tensor, result: Tensor, input_size: Sequence[int], layout: Layout, parameters: Any
    ) -> None:
        """Of dense tensors; plain sizes are remembered, as checking them again would cost more than a small kernel."""
        *own, backend = (tuple(p) if isinstance(p, Sequence) and not isinstance(p, str) else p for p in parameters)
        kernel = getattr(backends.kernels(backend, source.device.type), f"{self._name}_{direction}")
        kernel(source, result, self._remembered(tuple(input_size), *own), layout, *own[self._rest])

    # --- forward. `parameters` are the schema's, the backend last

    def _forward_fake(self, input: Tensor, *parameters: Any) -> Tensor:
        g = self._geometry(of_planes(input.shape), *parameters[:-1])
        memory_format = layout_of(input).memory_format
        return torch.empty((g.n, g.c, g.p, g.q), dtype=input.dtype, device=input.device, memory_format=memory_format)

    def _forward_run(self, input: Tensor, *parameters: Any) -> Tensor:
        output, layout = self._forward_fake(input, *parameters), layout_of(input)
        if output.numel() > 0:
            self._launch("forward", dense(input, layout), output, input.shape, layout, parameters)
        return output

    def _forward_setup(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, *ctx.parameters = inputs
        ctx.input_like = (input.shape, gradient_stride(input))

    def _forward_backward(self, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return self.backward(grad, *ctx.input_like, *ctx.parameters), *[None] * len(ctx.parameters)

    def _forward_vmap(self, info: Any, in_dims: tuple[Any, ...], input: Tensor, *parameters: Any) -> tuple[Tensor, int]:
        size = info.batch_size
        return unfold(self.forward(fold(input, in_dims[0], size, 0), *parameters), size, 0)

    # --- backward

    def _backward_fake(
        self, grad_output: Tensor, size: Sequence[int], stride: Sequence[int], *parameters: Any
    ) -> Tensor:
        return torch.empty_strided(size, stride, dtype=grad_output.dtype, device=grad_output.device)

    def _backward_run(
        self, grad_output: Tensor, size: Sequence[int], stride: Sequence[int], *parameters: Any
    ) -> Tensor:
        grad_input, layout = self._backward_fake(grad_output, size, stride), _like(size, stride)
        if grad_output.numel() == 0 or grad_input.numel() == 0:
            return grad_input.zero_()
        grad_output = dense(grad_output, layout)
        return filled(
            grad_input, layout, lambda out: self._launch("backward", grad_output, out, size, layout, parameters)
        )

    def _backward_setup(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, _, *ctx.parameters = inputs

    def _backward_backward(self, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return self.forward(grad, *ctx.parameters), None, None, *[None] * len(ctx.parameters)

    def _backward_vmap(self, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        grad_output, (n, *rest), stride, *parameters = args
        size = info.batch_size
        whole = (size * n, *rest)
        strides = dense_stride(whole, _like((n, *rest), stride))
        grad_input = self.backward(fold(grad_output, in_dims[0], size, 0), whole, strides, *parameters)
        return unfold(grad_input, size, 0)


def _undilated(check: Callable[..., PoolGeometry]) -> Callable[..., PoolGeometry]:
    """From the parameters of avg_pool to a pool's geometry."""

    def geometry(
        input_size: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        ceil_mode: bool,
        *_: Any,
    ) -> PoolGeometry:
        return check(input_size, kernel_size, stride, padding, (1,) * len(kernel_size), ceil_mode)

    return geometry


_avg_pool = _Average(
    "avg_pool",
    # a window may be as large as the image, and so be a symbol
    "SymInt[] kernel_size, SymInt[] stride, int[] padding, bool ceil_mode, bool count_include_pad, "
    "int? divisor_override",
    _undilated(pool_geometry),
    _undilated(pool_kernel_geometry),
    slice(4, 6),
)
avg_pool_forward, avg_pool_backward = _avg_pool.forward, _avg_pool.backward

_adaptive_avg_pool = _Average(
    "adaptive_avg_pool", "SymInt[] output_size", adaptive_pool_geometry, adaptive_pool_geometry, slice(1, 1)
)
adaptive_avg_pool_forward, adaptive_avg_pool_backward = _adaptive_avg_pool.forward, _adaptive_avg_pool.backward
