"""conv2d with its epilogue in one store:

    y = a(z),   z[n,k,p,q] = scale[k] (F(x, w)[n,k,p,q] + bias[k]) + shift[k] + residual[n,k,p,q]

F is conv2d's forward (conv.py, with I, W and S, the sum over n, p, q), a the activation. Nothing but what a caller
holds already is saved for the derivative: where a's derivative can be read off y (relu, relu6, leaky_relu) y serves,
else z is computed anew by this same operator without its activation, with the bits that y was made of but for the
rounding of the store. That is one more forward in the backward, instead of a tensor as large as y kept until then.

With g = a'(z) dy the derivatives need no pass over the outputs but those of conv2d itself:

    dx = I(g, scale w)    dw = scale W(g, x)    dbias = scale S(g)    dshift = S(g)    dresidual = g
    dscale[k] = sum over n,p,q of g (F(x, w) + bias) = sum over c,r,s of w[k] W(g, x)[k] + bias[k] S(g)[k]

All of it is made of operators and so can be differentiated again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..activation import activation_backward, known_from_output
from ..epilogue import Epilogue
from .batching import fold, unfold
from .conv import (
    PARAMETERS,
    ConvParameters,
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weight,
    conv_forward,
    fake_geometry,
    forward_output,
    geometry_of,
    with_border,
)
from .conv_kernel import kernel_of
from .memory import dense, gradient_stride
from .operator import Operator, register_autocast


def _by_filter(numbers: Tensor | None, tensor: Tensor, axis: int) -> Tensor:
    """tensor times one number for each index of an axis, or itself where there are none."""
    if numbers is None:
        return tensor
    return tensor * numbers.view(-1, *[1] * (tensor.dim() - 1 - axis))


def _forward_run(input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    epilogue, parameters = Epilogue(*rest[:5]), ConvParameters(*rest[5:])
    geometry = geometry_of(input.shape, weight.shape, parameters)
    output, layout = forward_output(input, weight, geometry)
    if input.numel() == 0:
        sums = output.zero_() if bias is None else output.copy_(bias[:, None, None])
        return output.copy_(epilogue.apply(sums))
    kernel = kernel_of("forward", input, geometry, parameters.backend)
    images = dense(input, layout), dense(weight, layout)
    input, weight, geometry = with_border(kernel, "forward", images, geometry, layout, parameters)
    operands = input, weight, None if bias is None else bias.contiguous(), output
    if kernel.depthwise:  # these kernels store the sums; PyTorch does the rest, in a second pass
        kernel.launch(*operands, geometry, layout)
        return output.copy_(epilogue.apply(output))
    kernel.launch(*operands, geometry, layout, *kernel.tf32, epilogue=epilogue.contiguous(layout))
    return output


def _forward_fake(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    parameters = ConvParameters(*rest[6:])
    return forward_output(input, weight, fake_geometry(input.shape, weight.shape, parameters))[0]


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, bias, scale, shift, residual, activation, slope, *ctx.parameters = inputs
    of_input, of_weight, of_bias, of_scale, *_ = ctx.needs_input_grad
    ctx.activation = activation, slope
    ctx.input_like = (input.shape, gradient_stride(input))
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
        output = conv_epilogue_forward(*inputs[:6], "none", 0.0, *inputs[6:])
    return activation_backward(grad, output, name, slope)


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *tensors, output = ctx.saved_tensors
    input, weight, bias, scale, *_ = tensors
    of_input, of_weight, of_bias, of_scale, of_shift, of_residual, *_ = ctx.needs_input_grad
    g = _at_pre_activation(grad, output, (*tensors, *ctx.parameters), ctx.activation)
    grad_input = grad_weight = grad_bias = grad_scale = whole = total = None
    if of_input:
        grad_input = conv_backward_input(g, _by_filter(scale, weight, 0), *ctx.input_like, *ctx.parameters)
    if of_weight or of_scale:
        whole = conv_backward_weight(g, input, *ctx.weight_like, *ctx.parameters)
    if of_bias or of_shift or (of_scale and bias is not None):
        total = conv_backward_bias(g, ConvParameters(*ctx.parameters).backend)
    if of_weight:
        grad_weight = _by_filter(scale, whole, 0)
    if of_bias:
        grad_bias = _by_filter(scale, total, 0)
    if of_scale:
        grad_scale = _scale_gradient(whole, weight, total, bias)
    return (
        grad_input, grad_weight, grad_bias, grad_scale, total if of_shift else None, g if of_residual else None,
        *[None] * (2 + len(ctx.parameters)),
    )  # fmt: skip


def _scale_gradient(whole: Tensor, weight: Tensor, total: Tensor | None, bias: Tensor | None) -> Tensor:
    """The sum over a filter of w W(g, x), and bias S(g); 16-bit types in fp32, rounded once."""
    dtype = weight.dtype
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    result = (whole.to(wide) * weight.to(wide)).sum((1, 2, 3))
    if bias is not None and total is not None:
        result = result + total.to(wide) * bias.to(wide)
    return result.to(dtype)


def _forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    input, weight, *vectors, residual, activation, slope = args[:8]
    parameters = ConvParameters(*args[8:])
    of_input, of_weight, *of_vectors, of_residual = in_dims[:6]
    size = info.batch_size

    def call(axis: int, parameters: ConvParameters) -> tuple[Tensor, int]:
        folded = None if residual is None else fold(residual, of_residual, size, axis)
        output = conv_epilogue_forward(input, weight, *vectors, folded, activation, slope, *parameters)
        return unfold(output, size, axis)

    if of_weight is None and all(axis is None for axis in of_vectors):
        input = fold(input, of_input, size, 0)
        return call(0, parameters)
    weight = fold(weight, of_weight, size, 0)
    vectors = [None if v is None else fold(v, axis, size, 0) for v, axis in zip(vectors, of_vectors, strict=True)]
    if of_input is None and parameters.groups == 1:
        return call(1, parameters)
    input = fold(input, of_input, size, 1)
    return call(1, parameters.in_more_groups(size))


def _forward_jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    input, weight, bias, scale, _, _, name, slope, *parameters = inputs
    of_input, of_weight, of_bias, of_scale, of_shift, of_residual, *_ = tangents
    terms = []
    if of_input is not None:
        terms.append(_by_filter(scale, conv_forward(of_input, weight, None, *parameters), 1))
    if of_weight is not None:
        terms.append(_by_filter(scale, conv_forward(input, of_weight, None, *parameters), 1))
    if of_bias is not None:
        terms.append(_by_filter(scale, of_bias[:, None, None].expand_as(outputs[0]), 1))
    if of_scale is not None:
        terms.append(_by_filter(of_scale, conv_forward(input, weight, bias, *parameters), 1))
    if of_shift is not None:
        terms.append(of_shift[:, None, None].expand_as(outputs[0]))
    if of_residual is not None:
        terms.append(of_residual)
    tangent = sum(terms[1:], terms[0])
    output = outputs[0] if known_from_output(name, slope) else None
    return _at_pre_activation(tangent, output, (*inputs[:6], *parameters), (name, slope))


conv_epilogue_forward: Operator = Operator(
    "conv_epilogue_forward(Tensor input, Tensor weight, Tensor? bias, Tensor? scale, Tensor? shift, "
    f"Tensor? residual, str activation, float negative_slope, {PARAMETERS}) -> Tensor",
    _forward_run,
    _forward_fake,
    _forward_vmap,
    _forward_setup,
    _forward_backward,
    _forward_jvp,
)


register_autocast("conv_epilogue_forward", tensors=6)
