"""Batch normalization with what follows it, in one write:

    y = a(z),   z = scale[c] (x - mean[c]) + bias[c] + residual,   scale = weight / sqrt(var + eps)

mean and var are given, but in training they are x's own: the derivative counts what x does by way of them. A backward
that nobody differentiates further is one operator, in two passes over memory; nothing is kept for it but x, or the
output where a residual was added and the activation's derivative can be read off its value. Whoever differentiates
further gets the same made of norm_parts.py's operators, which have derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..activation import ACTIVATIONS, activation_backward, known_from_output
from .batching import unfold
from .memory import dense, dense_stride, filled, gradient_stride, layout_of
from .norm_parts import (
    batch_norm_combine,
    batch_norm_statistics,
    batch_norm_sums,
    elements,
    fold_all,
    kernels,
    sizes_of,
    wide,
)
from .operator import Operator, is_plain


def _as_kernels_take(images: Tensor, *numbers: Tensor | None) -> tuple[Any, ...]:
    """Dense, and of the type that is computed in: a copy where parameters are of 16 bits."""
    return tuple(None if n is None else n.to(wide(images.dtype)).contiguous() for n in numbers)


def _scale(var: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """1 / sqrt(var + eps), and that times the weight."""
    inverse = torch.rsqrt(var.to(wide(dtype)) + eps)
    return inverse, inverse if weight is None else inverse * weight.to(wide(dtype))


def _pre_activation(
    x: Tensor, mean: Tensor, scale: Tensor, bias: Tensor | None, residual: Tensor | None, backend: str
) -> Tensor:
    number = wide(x.dtype)
    ones = None if residual is None else torch.ones_like(scale)
    delta = None if bias is None else bias.to(number)
    return batch_norm_combine(x, residual, None, scale, mean.to(number), delta, ones, None, backend)


# --- forward


def _forward_fake(input: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(input, memory_format=layout_of(input).memory_format)


def _forward_run(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    training: bool,
    eps: float,
    activation: str,
    slope: float,
    backend: str,
) -> Tensor:
    output, layout = _forward_fake(input), layout_of(input)
    if output.numel() > 0:
        kernels(backend, input).batch_norm_normalize(
            dense(input, layout), None if residual is None else dense(residual, layout), output,

            _as_kernels_take(input, mean, var, weight, bias), eps, ACTIVATIONS.index(activation), slope,
            sizes_of(input, layout),
        )  # fmt: skip
    return output


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, residual, ctx.training, ctx.eps, activation, slope, ctx.backend = inputs
    ctx.activation = activation, slope
    ctx.residual_stride = () if residual is None else gradient_stride(residual)
    read_off = residual is not None and activation != "none" and known_from_output(activation, slope)
    added = residual if activation != "none" and not read_off else None
    ctx.save_for_backward(*tensors, added, output if read_off else None)


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, mean, var, weight, bias, residual, output = ctx.saved_tensors
    of_input, _, _, of_weight, of_bias, of_residual, *_ = ctx.needs_input_grad
    wanted = of_input, of_weight, of_bias, of_residual
    rest = ctx.training, ctx.eps, *ctx.activation, ctx.backend
    if torch.is_grad_enabled():
        tensors = input, mean, var, weight, bias, residual, output
        gradients: Any = _differentiable_backward(grad, tensors, wanted, *rest)
        gradients = [_in_strides(gradients[0], gradient_stride(input)), *gradients[1:]]
    else:
        # without an activation what a residual gets is grad itself
        masked = of_residual and ctx.activation[0] != "none"
        found = batch_norm_backward(
            grad, input, mean, var, weight, bias, residual, output, *rest, of_input, of_weight, of_bias, masked,
            gradient_stride(input), ctx.residual_stride,
        )  # fmt: skip
        gradients = [*found[:3], found[3] if masked else grad]
    of_input, of_weight, of_bias, of_residual = (g if w else None for g, w in zip(gradients, wanted, strict=True))
    return of_input, None, None, of_weight, of_bias, of_residual, *[None] * 5


def _in_strides(gradient: Tensor | None, stride: tuple[int, ...]) -> Tensor | None:
    """As its tensor lies; what a transformation of torch.func looks at has no strides of its own."""
    if gradient is None or not is_plain(gradient) or gradient.stride() == stride:
        return gradient
    return gradient.new_empty_strided(gradient.shape, stride).copy_(gradient)


def _differentiable_backward(
    grad: Tensor,
    tensors: tuple[Any, ...],
    wanted: tuple[bool, ...],
    training: bool,
    eps: float,
    activation: str,
    slope: float,
    backend: str,
) -> tuple[Any, ...]:
    x, mean, var, weight, bias, residual, output = tensors
    if training:
        mean, var = batch_norm_statistics(x, backend)
    inverse, scale = _scale(var, weight, eps, x.dtype)
    g = grad
    if activation != "none":
        # what is read off the output has no further derivative
        known = output.detach() if output is not None else None
        z = _pre_activation(x, mean, scale, bias, residual, backend) if known is None else known
        g = activation_backward(grad, z, activation, slope)
    first = second = None
    if training or wanted[1] or wanted[2]:
        first, second = batch_norm_sums(g, x, mean.to(wide(x.dtype)), backend).unbind()
    of_input = None
    if wanted[0]:
        of_input = _projected(x, g, mean, inverse, scale, first, second, training, backend)
    return (
        of_input,
        None if weight is None or second is None else (second * inverse).to(weight.dtype),
        None if bias is None or first is None else first.to(bias.dtype),
        g,
    )


def _projected(
    x: Tensor,
    g: Tensor,
    mean: Tensor,
    inverse: Tensor,
    scale: Tensor,
    first: Tensor | None,
    second: Tensor | None,
    training: bool,
    backend: str,
    extra: tuple[Tensor | None, Tensor | None] = (None, None),
    added: Tensor | None = None,
) -> Tensor:
    """scale (g - mean(g) - x^ mean(g x^)) in training, else scale g; plus `extra` of (x - mean) and 1, and an image."""
    gamma, delta = extra
    if training and first is not None and second is not None:
        n = elements(x)
        by_x, by_one = -scale * inverse * inverse * second / n, -scale * first / n
        gamma = by_x if gamma is None else gamma + by_x
        delta = by_one if delta is None else delta + by_one
    ones = None if added is None else torch.ones_like(scale)
    return batch_norm_combine(x, g, added, gamma, mean.to(scale.dtype), delta, scale, ones, backend)


def _forward_jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    x, mean, var, weight, bias, residual, training, eps, activation, slope, backend = inputs
    of_x, _, _, of_weight, of_bias, of_residual, *_ = tangents
    if training:
        mean, var = batch_norm_statistics(x, backend)
    inverse, scale = _scale(var, weight, eps, x.dtype)
    extra = (
        None if of_weight is None else of_weight.to(scale.dtype) * inverse,
        None if of_bias is None else of_bias.to(scale.dtype),
    )
    first = second = None
    if of_x is not None and training:
        first, second = batch_norm_sums(of_x, x, mean, backend).unbind()
    tangent = _projected(x, of_x, mean, inverse, scale, first, second, training, backend, extra, of_residual)
    if activation == "none":
        return tangent
    return activation_backward(tangent, _pre_activation(x, mean, scale, bias, residual, backend), activation, slope)


def _forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    output = batch_norm_forward(*fold_all(args, in_dims, info.batch_size, (0, 5), (1, 2, 3, 4)))
    return unfold(output, info.batch_size, 1)


batch_norm_forward: Operator = Operator(
    "batch_norm_forward(Tensor input, Tensor mean, Tensor var, Tensor? weight, Tensor? bias, Tensor? residual, "
    "bool training, float eps, str activation, float negative_slope, str backend) -> Tensor",
    _forward_run,
    _forward_fake,
    _forward_vmap,
    _forward_setup,
    _forward_backward,
    _forward_jvp,
)


# --- backward, all gradients at once


def _backward_fake(
    grad_output: Tensor,
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of input, weight, bias and residual; an empty tensor for one that is not wanted."""
    of_input, of_weight, of_bias, of_residual, input_stride, residual_stride = rest[-6:]

    def image(wanted: bool, stride: Sequence[int]) -> Tensor:
        like = {"dtype": input.dtype, "device": input.device}
        return torch.empty_strided(input.shape, stride, **like) if wanted else torch.empty(0, **like)

    def number(wanted: bool, of: Tensor | None) -> Tensor:
        return grad_output.new_empty(0) if of is None or not wanted else of.new_empty(of.shape)

    return (
        image(of_input, input_stride), number(of_weight, weight), number(of_bias, bias),
        image(of_residual, residual_stride),
    )  # fmt: skip


def _backward_run(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_output, input, mean, var, weight, bias, residual, output, training, eps, activation, slope, *rest = args
    backend, *wanted, _, _ = rest
    gradients = _backward_fake(*args)
    if input.numel() == 0:
        return tuple(g.zero_() for g in gradients)  # type: ignore[return-value]
    layout = layout_of(input)
    images = [None if t is None else dense(t, layout) for t in (grad_output, input, residual, output)]
    of_input, of_weight, of_bias, of_residual = (g if w else None for g, w in zip(gradients, wanted, strict=True))
    kernel = kernels(backend, input).batch_norm_backward

    def fill(to_input: Tensor | None, to_residual: Tensor | None) -> None:
        kernel(
            *images,
            _as_kernels_take(input, mean, var, weight, bias), eps, ACTIVATIONS.index(activation), slope, training,
            (to_input, of_weight, of_bias, to_residual), sizes_of(input, layout),
        )  # fmt: skip

    filled(of_input, layout, lambda first: filled(of_residual, layout, lambda second: fill(first, second)))
    return gradients


def _backward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    size = info.batch_size
    folded = fold_all(args, in_dims, size, (0, 1, 6, 7), (2, 3, 4, 5))
    images = folded[1]
    stride = dense_stride(images.shape, layout_of(images))
    found = batch_norm_backward(*folded[:-2], stride, stride if args[-1] else args[-1])
    wanted = args[-6:-2]

    def apart(gradient: Tensor, wanted: bool, axis: int) -> tuple[Tensor, int | None]:
        return unfold(gradient, size, axis) if wanted else (gradient, None)

    results = [apart(*each) for each in zip(found, wanted, (1, 0, 0, 1), strict=True)]
    return tuple(r for r, _ in results), tuple(axis for _, axis in results)


batch_norm_backward: Operator = Operator(
    "batch_norm_backward(Tensor grad_output, Tensor input, Tensor mean, Tensor var, Tensor? weight, Tensor? bias, "
    "Tensor? residual, Tensor? output, bool training, float eps, str activation, float negative_slope, str backend, "
    "bool of_input, bool of_weight, bool of_bias, bool of_residual, SymInt[] input_stride, SymInt[] residual_stride) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _backward_run,
    _backward_fake,
    _backward_vmap,
)
