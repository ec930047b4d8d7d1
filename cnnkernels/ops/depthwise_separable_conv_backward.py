"""depthwise_separable_conv2d's backward operator: one kernel for what follows from the error g of the pointwise sums.

    error of z[n,m,p,q] = a'(z[n,m,p,q]) sum over k of wp[k,m] g[n,k,p,q]
    gradient of wp[k,m] = sum over n,p,q of g[n,k,p,q] a(z[n,m,p,q])

z, the depthwise sums, is given or made anew in shared memory. The operator has no derivative: whoever differentiates
further takes the composed way of depthwise_separable_conv.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..geometry import Layout
from .conv import ConvParameters, geometry_of
from .memory import dense, filled, is_channels_last
from .operator import Operator


def _fake(
    grad: Tensor,
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor | None,
    depthwise_bias: Tensor | None,
    intermediate: Tensor | None,
    of_intermediate: bool,
    of_pointwise: bool,
    size: Sequence[int],
    stride: Sequence[int],
    pointwise_size: Sequence[int],
    pointwise_stride: Sequence[int],
    *parameters: Any,
) -> tuple[Tensor, Tensor]:
    """Both results, an empty tensor for one that is not wanted."""

    def made(wanted: bool, size: Sequence[int], stride: Sequence[int]) -> Tensor:
        like = {"dtype": grad.dtype, "device": grad.device}
        return torch.empty_strided(size, stride, **like) if wanted else torch.empty(0, **like)

    return made(of_intermediate, size, stride), made(of_pointwise, pointwise_size, pointwise_stride)


def _run(*arguments: Any) -> tuple[Tensor, Tensor]:
    grad, input, depthwise_weight, pointwise_weight, depthwise_bias, intermediate, *rest = arguments
    of_intermediate, of_pointwise, size, stride, _, _, *convolution, activation, slope, backend = rest
    error, gradient = _fake(*arguments)
    if grad.numel() == 0:
        return error.zero_(), gradient.zero_()
    layout = Layout.NHWC if is_channels_last(size, stride) else Layout.NCHW
    # The pointwise filter and its gradient lie as [k][m] in either layout.
    operands = (
        dense(grad, layout),
        dense(input, layout),
        dense(depthwise_weight, layout),
        None if pointwise_weight is None else dense(pointwise_weight, layout),
        None if depthwise_bias is None else depthwise_bias.contiguous(),
        None if intermediate is None else dense(intermediate, layout),
    )
    geometry = geometry_of(input.shape, depthwise_weight.shape, ConvParameters(*convolution, backend))
    kernel = backends.kernels(backend, grad.device.type).depthwise_separable_conv_backward

    def fill(error: Tensor | None, gradient: Tensor | None) -> None:
        kernel(*operands, error, gradient, geometry, layout, activation, slope)

    wanted = error if of_intermediate else None, gradient if of_pointwise else None
    filled(wanted[0], layout, lambda first: filled(wanted[1], layout, lambda second: fill(first, second)))
    return error, gradient


def _vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Sample by sample: each has a gradient of its own."""
    samples = [
        depthwise_separable_conv_backward(
            *(t if axis is None else t.select(axis, i) for t, axis in zip(args[:6], in_dims[:6], strict=True)),
            *args[6:],
        )
        for i in range(info.batch_size)
    ]
    errors, gradients = zip(*samples, strict=True)
    return (torch.stack(errors), torch.stack(gradients)), (0, 0)


depthwise_separable_conv_backward: Operator = Operator(
    "depthwise_separable_conv_backward(Tensor grad_output, Tensor input, Tensor depthwise_weight, "
    "Tensor? pointwise_weight, Tensor? depthwise_bias, Tensor? intermediate, bool of_intermediate, bool of_pointwise, "
    "SymInt[] intermediate_size, SymInt[] intermediate_stride, SymInt[] pointwise_size, SymInt[] pointwise_stride, "
    "int[] stride, int[] padding, int[] dilation, int groups, str depthwise_activation, float negative_slope, "
    "str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
    _vmap,
)
