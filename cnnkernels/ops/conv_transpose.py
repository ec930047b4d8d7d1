"""conv_transpose2d's operator, with its epilogue in one store:

    y = a(z),   z[n,k] = scale[k] (T(x, w)[n,k] + bias[k]) + shift[k] + residual[n,k],   <T(x, w), g> = <x, F(g, w)>

T is the transpose of a convolution F (conv.py): F's backward_input as a forward operator, with F's input as its
output. `parameters` are F's, so that F(y, w) is of x's size: padding after the last row and column is PyTorch's
padding less output_padding, which may be below zero. T is linear in x and in w and the three of conv.py turn it around:

    dx = F(g, scale w)    dw = scale W(x, g)    dbias = scale S(g)    dshift = S(g)    dresidual = g
    dscale[k] = sum of g[k] (T(x, w)[k] + bias[k]) = sum over w[.,k] W(x, g)[.,k] + bias[k] S(g)[k]

with g = a'(z) dy, a' read off y or of z computed anew as in conv_epilogue.py. All of it can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..activation import activation_backward, known_from_output
from ..epilogue import Epilogue
from ..geometry import ConvGeometry, Layout
from .batching import fold, unfold
from .conv import (
    PARAMETERS,
    ConvParameters,
    conv_backward_bias,
    conv_backward_weight,
    conv_forward,
    geometry_of,
    layout_beside,
)
from .conv_kernel import kernel_of
from .memory import dense, gradient_stride
from .operator import Operator, register_autocast


def output_size(input_size: Sequence[int], weight_size: Sequence[int], parameters: ConvParameters) -> list[int]:
    """The size of y: of the image on which F finds each place of x, and no row or column beyond."""
    stride, padding, dilation, groups, *_ = parameters
    axes = zip(input_size[2:], weight_size[2:], stride, padding[::2], padding[1::2], dilation, strict=True)
    extents = [(size - 1) * s + d * (taps - 1) + 1 - before - after for size, taps, s, before, after, d in axes]
    return [input_size[0], weight_size[1] * groups, *extents]


def _by_channel(numbers: Tensor | None, weight: Tensor, groups: int) -> Tensor:
    """A filter times one number for each channel of y, or itself where there are none."""
    if numbers is None:
        return weight
    of_groups = weight.view(groups, -1, *weight.shape[1:]) * numbers.reshape(groups, 1, -1, 1, 1)
    return of_groups.reshape(weight.shape)


def _fake(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return _output(input, weight, ConvParameters(*rest[6:]))[0]


def _output(input: Tensor, weight: Tensor, parameters: ConvParameters) -> tuple[Tensor, Layout]:
    layout = layout_beside(input.shape, input.stride(), weight)
    size = output_size(input.shape, weight.shape, parameters)
    return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=layout.memory_format), layout


def _run(input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    epilogue, parameters = Epilogue(*rest[:5]), ConvParameters(*rest[5:])
    output, layout = _output(input, weight, parameters)
    if output.numel() == 0:
        return output
    geometry: ConvGeometry = geometry_of(output.shape, weight.shape, parameters)
    kernel = kernel_of("backward_input", input, geometry, parameters.backend)
    bias = None if bias is None else bias.contiguous()
    operands = dense(input, layout), dense(weight, layout), output, geometry, layout
    if kernel.depthwise:  # these kernels store the sums and the bias; PyTorch does the rest, in a second pass
        kernel.launch(*operands, bias=bias)
        return output if epilogue.is_empty else output.copy_(epilogue.apply(output))
    follows = None if epilogue.is_empty else epilogue.contiguous(layout)
    kernel.launch(*operands, *kernel.tf32, bias=bias, epilogue=follows)
    return output


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, bias, scale, shift, residual, activation, slope, *ctx.parameters = inputs
    of_input, of_weight, of_bias, of_scale, *_ = ctx.needs_input_grad
    ctx.activation = activation, slope
    ctx.weight_like = (weight.shape, gradient_stride(weight))
    again = not known_from_output(activation, slope)
    ctx.save_for_backward(
        input if again or of_weight or of_scale else None,
        weight if again or of_input or of_scale else None,
        bias if again or of_scale else None,
        scale if again or of_input or of_weight or of_bias else None,
        shift if again else None,
        residual if again else None,
        None if again or activation == "none" else output,
    )


def _at_pre_activation(grad: Tensor, output: Tensor | None, inputs: tuple[Any, ...], activation: Any) -> Tensor:
    """g: grad times the activation's derivative; `inputs` are the forward's but for the activation."""
    name, slope = activation
    if name == "none":
        return grad
    if output is None:
        output = conv_transpose_forward(*inputs[:6], "none", 0.0, *inputs[6:])
    return activation_backward(grad, output, name, slope)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *tensors, output = ctx.saved_tensors
    input, weight, bias, scale, *_ = tensors
    of_input, of_weight, of_bias, of_scale, of_shift, of_residual, *_ = ctx.needs_input_grad
    parameters = ConvParameters(*ctx.parameters)
    g = _at_pre_activation(grad, output, (*tensors, *parameters), ctx.activation)
    grad_input = grad_weight = grad_bias = grad_scale = whole = total = None
    if of_input:
        grad_input = conv_forward(g, _by_channel(scale, weight, parameters.groups), None, *parameters)
    if of_weight or of_scale:
        whole = conv_backward_weight(input, g, *ctx.weight_like, *parameters)
    if of_bias or of_shift or (of_scale and bias is not None):
        total = conv_backward_bias(g, parameters.backend)
    if of_weight:
        grad_weight = _by_channel(scale, whole, parameters.groups)
    if of_bias:
        grad_bias = total if scale is None else total * scale
    if of_scale:
        grad_scale = _scale_gradient(whole, weight, total, bias, parameters.groups)
    return (
        grad_input, grad_weight, grad_bias, grad_scale, total if of_shift else None, g if of_residual else None,
        *[None] * (2 + len(parameters)),
    )  # fmt: skip


def _scale_gradient(whole: Tensor, weight: Tensor, total: Tensor | None, bias: Tensor | None, groups: int) -> Tensor:
    """The sum over a channel's filters of w W(x, g), and bias S(g); 16-bit types in fp32, rounded once."""
    wide = torch.float64 if weight.dtype is torch.float64 else torch.float32
    products = whole.to(wide) * weight.to(wide)
    result = products.view(groups, -1, *weight.shape[1:]).sum((1, 3, 4)).flatten()
    if bias is not None and total is not None:
        result = result + total.to(wide) * bias.to(wide)
    return result.to(weight.dtype)


def _vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    input, weight, *vectors, residual, activation, slope = args[:8]
    parameters = ConvParameters(*args[8:])
    of_input, of_weight, *of_vectors, of_residual = in_dims[:6]
    size = info.batch_size
    by_filter = of_weight is not None or any(axis is not None for axis in of_vectors)
    axis = 1 if by_filter else 0
    if by_filter:  # a batch of filters is a grouped convolution
        weight, parameters = fold(weight, of_weight, size, 0), parameters.in_more_groups(size)
        vectors = [None if v is None else fold(v, of, size, 0) for v, of in zip(vectors, of_vectors, strict=True)]
    input = fold(input, of_input, size, axis)
    residual = None if residual is None else fold(residual, of_residual, size, axis)
    output = conv_transpose_forward(input, weight, *vectors, residual, activation, slope, *parameters)
    return unfold(output, size, axis)


def _jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    input, weight, bias, scale, _, _, name, slope, *parameters = inputs
    of_input, of_weight, of_bias, of_scale, of_shift, of_residual, *_ = tangents

    def plain(input: Tensor, weight: Tensor, bias: Tensor | None = None, factors: Tensor | None = None) -> Tensor:
        return conv_transpose_forward(input, weight, bias, factors, None, None, "none", 0.0, *parameters)  # type: ignore[no-any-return]

    def spread(numbers: Tensor) -> Tensor:
        return numbers[:, None, None].expand_as(outputs[0])

    terms = []
    if of_input is not None:
        terms.append(plain(of_input, weight, None, scale))
    if of_weight is not None:
        terms.append(plain(input, of_weight, None, scale))
    if of_bias is not None:
        terms.append(spread(of_bias if scale is None else of_bias * scale))
    if of_scale is not None:
        terms.append(plain(input, weight, bias, of_scale))
    if of_shift is not None:
        terms.append(spread(of_shift))
    if of_residual is not None:
        terms.append(of_residual)
    tangent = sum(terms[1:], terms[0])
    output = outputs[0] if known_from_output(name, slope) else None
    return _at_pre_activation(tangent, output, (*inputs[:6], *parameters), (name, slope))


conv_transpose_forward: Operator = Operator(
    "conv_transpose_forward(Tensor input, Tensor weight, Tensor? bias, Tensor? scale, Tensor? shift, "
    f"Tensor? residual, str activation, float negative_slope, {PARAMETERS}) -> Tensor",
    _run,
    _fake,
    _vmap,
    _setup,
    _backward,
    _jvp,
)


register_autocast("conv_transpose_forward", tensors=6)
