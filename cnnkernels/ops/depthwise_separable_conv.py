"""depthwise_separable_conv2d's operators: forward and intermediate; backward has a file of its own.

    z[n,m,p,q] = bd[m] + sum over r,s of x[n, m / multiplier, p stride - pad + r dilation, ...] wd[m,0,r,s]
    y[n,k,p,q] = b(bp[k] + sum over m of wp[k,m] a(z[n,m,p,q]))       a, b: the two activations

The forward computes y in one kernel and never stores a(z). Its derivative needs z, which is made anew with the same
bits unless the forward was asked to save it. Two ways lead from there to the gradients:

    fused       where nobody differentiates further and the backend says that it pays: the operator `backward` makes of
                y's error z's error and the pointwise filter's gradient in one kernel, z and a(z) in shared memory
    composed    elsewhere: the operator `intermediate` stores z, and the rest is made of conv2d's operators and the
                activations' own derivatives, each of which can be differentiated again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..activation import activate, activation_backward, known_from_output
from ..geometry import ConvGeometry, Layout
from . import conv
from .batching import fold, unfold
from .checks import conv_geometry, of_planes
from .conv import ConvParameters, conv_backward_bias, conv_backward_input, conv_backward_weight, conv_forward
from .conv_kernel import rounds_to_tf32
from .depthwise_separable_conv_backward import depthwise_separable_conv_backward
from .memory import dense, dense_stride, gradient_stride, is_channels_last
from .operator import Operator, register_autocast

# `parameters` are the schema's last: first the depthwise convolution's, as conv2d's, of which `groups` is C.
PARAMETERS = "int[] stride, int[] padding, int[] dilation, int groups"
ACTIVATIONS = "str depthwise_activation, str pointwise_activation, float negative_slope"
_ONE_BY_ONE = (1, 1), (0, 0, 0, 0), (1, 1), 1


def _layout(input: Tensor, depthwise_weight: Tensor, pointwise_weight: Tensor) -> Layout:
    """channels_last where the input or a filter is: what two convolutions one after the other would give."""
    tensors = input, depthwise_weight, pointwise_weight
    return Layout.NHWC if any(is_channels_last(t.shape, t.stride()) for t in tensors) else Layout.NCHW


def _outputs(
    input: Tensor, pointwise_weight: Tensor, save: bool, geometry: ConvGeometry, layout: Layout
) -> tuple[Tensor, Tensor]:
    def empty(channels: int) -> Tensor:
        shape = (geometry.n, channels, geometry.p, geometry.q)
        return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=layout.memory_format)

    return empty(pointwise_weight.shape[0]), empty(geometry.k) if save else input.new_empty(0)


# --- forward: y, and z where it is to be saved (else an empty tensor)


def _forward_fake(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
    save: bool,
    *parameters: Any,
) -> tuple[Tensor, Tensor]:
    geometry = conv_geometry(of_planes(input.shape), depthwise_weight.shape, *parameters[:4])
    layout = _layout(input, depthwise_weight, pointwise_weight)
    return _outputs(input, pointwise_weight, save, geometry, layout)


def _forward_run(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
    save: bool,
    *parameters: Any,
) -> tuple[Tensor, Tensor]:
    stride, padding, dilation, groups, *activations, backend = parameters
    depthwise = ConvParameters(stride, padding, dilation, groups, backend)
    geometry = conv.geometry_of(input.shape, depthwise_weight.shape, depthwise)
    layout = _layout(input, depthwise_weight, pointwise_weight)
    output, intermediate = _outputs(input, pointwise_weight, save, geometry, layout)
    if output.numel() > 0:
        backends.kernels(backend, input.device.type).depthwise_separable_conv_forward(
            dense(input, layout),
            dense(depthwise_weight, layout),
            dense(pointwise_weight, layout),
            None if depthwise_bias is None else depthwise_bias.contiguous(),
            None if pointwise_bias is None else pointwise_bias.contiguous(),
            output,
            intermediate if save else None,
            geometry,
            layout,
            rounds_to_tf32(backend, "depthwise_separable_conv", input),
            *activations,
        )
    return output, intermediate


def _needs_output(activation: str, negative_slope: float) -> bool:
    """Whether y itself tells the derivative of the second activation."""
    return activation != "none" and known_from_output(activation, negative_slope)


def _forward_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, save, *ctx.parameters = inputs
    y, intermediate = output
    _, _, _, _, first, second, slope, _ = ctx.parameters
    of_input, of_depthwise, of_pointwise, of_depthwise_bias, *_ = ctx.needs_input_grad
    below = of_input or of_depthwise or of_depthwise_bias
    from_output = _needs_output(second, slope)
    from_sums = second != "none" and not from_output  # the second activation's derivative, at sums computed anew
    needs_z = of_pointwise or from_sums or (below and first != "none")
    ctx.input_like = (input.shape, gradient_stride(input))
    ctx.depthwise_like = (depthwise_weight.shape, gradient_stride(depthwise_weight))
    ctx.pointwise_like = (pointwise_weight.shape, gradient_stride(pointwise_weight))
    n, _, p, q = y.shape
    shape = (n, depthwise_weight.shape[0], p, q)
    ctx.intermediate_like = (shape, dense_stride(shape, _layout(input, depthwise_weight, pointwise_weight)))
    ctx.needs_z = needs_z
    ctx.save_for_backward(
        input if needs_z or of_depthwise else None,
        depthwise_weight if needs_z or of_input else None,
        pointwise_weight if below or from_sums else None,
        depthwise_bias if needs_z else None,
        pointwise_bias if from_sums else None,
        intermediate if save and needs_z else None,
        y if from_output else None,
    )
    ctx.mark_non_differentiable(intermediate)
    ctx.set_materialize_grads(False)


def _is_last_derivative() -> bool:
    """Whether nobody differentiates the backward pass that is being run."""
    further = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
    return not further and torch.autograd.forward_ad._current_level < 0


def _forward_backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 14
    input, depthwise_weight, *_ = ctx.saved_tensors
    *convolution, _, _, _, backend = ctx.parameters
    of_input, of_depthwise, of_pointwise, of_depthwise_bias, of_pointwise_bias, *_ = ctx.needs_input_grad
    depthwise = (*convolution, backend)
    kernels = backends.kernels(backend, grad.device.type)
    tf32 = rounds_to_tf32(backend, "depthwise_separable_conv", grad)
    fuses = (
        ctx.needs_z
        and _is_last_derivative()
        and kernels.depthwise_separable_conv_fuses_backward(grad.dtype, int(grad.shape[1]), tf32)
    )
    below = of_input or of_depthwise or of_depthwise_bias
    grad, error, by_pointwise = (_fused_errors if fuses else _composed_errors)(ctx, grad, below, of_pointwise)

    by_input = by_depthwise = by_depthwise_bias = by_pointwise_bias = None
    if of_pointwise_bias:
        by_pointwise_bias = conv_backward_bias(grad, backend)
    if of_depthwise:
        by_depthwise = conv_backward_weight(error, input, *ctx.depthwise_like, *depthwise)
    if of_depthwise_bias:
        by_depthwise_bias = conv_backward_bias(error, backend)
    if of_input:
        by_input = conv_backward_input(error, depthwise_weight, *ctx.input_like, *depthwise)
    return by_input, by_depthwise, by_pointwise, by_depthwise_bias, by_pointwise_bias, *[None] * 9


Errors = tuple[Tensor, Tensor | None, Tensor | None]  # of the second sums, of z, and the pointwise filter's gradient


def _fused_errors(ctx: Any, grad: Tensor, below: bool, of_pointwise: bool) -> Errors:
    input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, z, output = ctx.saved_tensors
    *convolution, first, second, slope, backend = ctx.parameters
    tensors = depthwise_weight, pointwise_weight, depthwise_bias
    if second != "none":
        if output is None:
            output, _ = depthwise_separable_conv_forward(
                input, *tensors, pointwise_bias, False, *convolution, first, "none", slope, backend
            )
        grad = activation_backward(grad, output, second, slope)
    if not of_pointwise and first == "none":  # z's error is a plain product
        error = conv_backward_input(grad, pointwise_weight, *ctx.intermediate_like, *_ONE_BY_ONE, backend)
        return grad, error if below else None, None
    error, by_pointwise = depthwise_separable_conv_backward(
        grad, input, *tensors, z, below, of_pointwise, *ctx.intermediate_like, *ctx.pointwise_like,
        *convolution, first, slope, backend,
    )  # fmt: skip
    return grad, error if below else None, by_pointwise if of_pointwise else None


def _composed_errors(ctx: Any, grad: Tensor, below: bool, of_pointwise: bool) -> Errors:
    input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, z, output = ctx.saved_tensors
    *convolution, first, second, slope, backend = ctx.parameters
    depthwise, pointwise = (*convolution, backend), (*_ONE_BY_ONE, backend)
    middle = error = by_pointwise = None
    if ctx.needs_z:
        # A saved z is a constant to autograd: whoever differentiates further gets one that it can follow.
        if z is None or torch.is_grad_enabled():
            z = depthwise_separable_conv_intermediate(input, depthwise_weight, depthwise_bias, *depthwise)
        middle = activate(z, first, slope)
    if second != "none":
        at = output if output is not None else conv_forward(middle, pointwise_weight, pointwise_bias, *pointwise)
        grad = activation_backward(grad, at, second, slope)
    if of_pointwise:
        by_pointwise = conv_backward_weight(grad, middle, *ctx.pointwise_like, *pointwise)
    if below:
        error = conv_backward_input(grad, pointwise_weight, *ctx.intermediate_like, *pointwise)
        if first != "none":
            error = activation_backward(error, z, first, slope)
    return grad, error, by_pointwise


def _forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """A batch of inputs is one larger batch; filters or biases that differ by sample are called one by one."""
    size = info.batch_size
    if in_dims[1:5] == (None,) * 4:
        output, intermediate = depthwise_separable_conv_forward(fold(args[0], in_dims[0], size, 0), *args[1:])
        unfolded = unfold(intermediate, size, 0)[0] if args[5] else intermediate.expand(size, 0)
        return (unfold(output, size, 0)[0], unfolded), (0, 0)
    samples = [
        depthwise_separable_conv_forward(
            *(t if axis is None else t.select(axis, i) for t, axis in zip(args[:5], in_dims[:5], strict=True)),
            *args[5:],
        )
        for i in range(size)
    ]
    outputs, intermediates = zip(*samples, strict=True)
    return (torch.stack(outputs), torch.stack(intermediates)), (0, 0)


def _forward_jvp(inputs: tuple[Any, ...], outputs: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, _, *parameters = inputs
    *convolution, first, second, slope, backend = parameters
    depthwise, pointwise = (*convolution, backend), (*_ONE_BY_ONE, backend)
    of_pointwise, of_pointwise_bias = tangents[2], tangents[4]
    z = depthwise_separable_conv_intermediate(input, depthwise_weight, depthwise_bias, *depthwise)
    middle = activate(z, first, slope)
    terms = []
    inner = (input, depthwise_weight, depthwise_bias, *depthwise), (tangents[0], tangents[1], tangents[3])
    if any(tangent is not None for tangent in inner[1]):
        of_z = conv.forward_jvp(inner[0], (z,), inner[1])
        of_middle = activation_backward(of_z, z, first, slope)
        terms.append(conv_forward(of_middle, pointwise_weight, None, *pointwise))
    if of_pointwise is not None:
        terms.append(conv_forward(middle, of_pointwise, None, *pointwise))
    if of_pointwise_bias is not None:
        terms.append(of_pointwise_bias[:, None, None].expand_as(outputs[0]))
    tangent = sum(terms[1:], terms[0])
    if second != "none":
        at = conv_forward(middle, pointwise_weight, pointwise_bias, *pointwise)
        tangent = activation_backward(tangent, at, second, slope)
    return tangent, None


# --- intermediate: z alone. It is a depthwise convolution, and so are its derivatives and its batching rule.


def _intermediate_run(input: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Any) -> Tensor:
    geometry = conv.geometry_of(input.shape, weight.shape, ConvParameters(*parameters))
    z, layout = conv.forward_output(input, weight, geometry)
    if z.numel() > 0:
        backends.kernels(parameters[-1], input.device.type).depthwise_separable_conv_intermediate(
            dense(input, layout),
            dense(weight, layout),
            None if bias is None else bias.contiguous(),
            z,
            geometry,
            layout,
        )
    return z


depthwise_separable_conv_forward: Operator = Operator(
    "depthwise_separable_conv_forward(Tensor input, Tensor depthwise_weight, Tensor pointwise_weight, "
    f"Tensor? depthwise_bias, Tensor? pointwise_bias, bool save_intermediate, {PARAMETERS}, {ACTIVATIONS}, "
    "str backend) -> (Tensor, Tensor)",
    _forward_run,
    _forward_fake,
    _forward_vmap,
    _forward_setup,
    _forward_backward,
    _forward_jvp,
)
depthwise_separable_conv_intermediate: Operator = Operator(
    "depthwise_separable_conv_intermediate(Tensor input, Tensor depthwise_weight, Tensor? depthwise_bias, "
    f"{PARAMETERS}, str backend) -> Tensor",
    _intermediate_run,
    conv.forward_fake,
    conv.forward_vmap,
    conv.forward_setup,
    conv.forward_backward,
    conv.forward_jvp,
)


def reference(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    activations: Sequence[Any],
) -> Tensor:
    """The pair by PyTorch's own operators."""
    first, second, slope = activations
    F = torch.nn.functional
    middle = F.conv2d(input, depthwise_weight, depthwise_bias, stride, padding, dilation, input.shape[-3])
    return activate(F.conv2d(activate(middle, first, slope), pointwise_weight, pointwise_bias), second, slope)


register_autocast("depthwise_separable_conv_forward", tensors=5)
register_autocast("depthwise_separable_conv_intermediate", tensors=3)
