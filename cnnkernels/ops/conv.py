"""conv2d's operators: forward, backward_input, backward_weight, backward_bias.

    y[n,k,p,q] = b[k] + sum over c,r,s of x[n, c, p stride - pad + r dilation, q stride - pad + s dilation] w[k,c,r,s]

Write F(x, w) for the forward without bias, I(g, w) and W(g, x) for its gradients with respect to x and w, where g is
the gradient of y. All three are linear in each of their two arguments and <g, F(x, w)> = <I(g, w), x> = <W(g, x), w>,
so each one's derivative is made of the other two and every order of differentiation stays on the same kernels.

A convolution with a group for each channel is a depthwise one: the same operators, run by kernels of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends
from ..geometry import Axis, ConvGeometry, Layout, PaddingMode
from .batching import fold, unfold
from .border import fold_border, pad_border
from .checks import conv_geometry, conv_kernel_geometry, of_planes
from .conv_kernel import Kernel, kernel_of
from .memory import dense, dense_stride, filled, gradient_stride, is_channels_last, layout_of
from .operator import Operator, register_autocast


class ConvParameters(NamedTuple):
    """What an operator's schema ends with.

    padding: (before, after) of each spatial axis, first axis first. Where it is of zeros, the number after the last may
    be negative: so many rows or columns are no window's, as a transposed convolution has them (conv_transpose.py).
    """

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    backend: str
    padding_mode: str = "zeros"

    @property
    def border(self) -> tuple[list[int], str]:
        """Padding, last axis first, and mode, as border.py takes them."""
        axes = range(len(self.padding) - 2, -1, -2)
        return [side for axis in axes for side in self.padding[axis : axis + 2]], self.padding_mode

    def in_more_groups(self, factor: int) -> ConvParameters:
        return self._replace(groups=self.groups * factor)


PARAMETERS = 'int[] stride, int[] padding, int[] dilation, int groups, str backend, str padding_mode="zeros"'


@functools.lru_cache(maxsize=4096)
def _remembered_geometry(
    input_size: Sequence[int], weight_size: Sequence[int], parameters: ConvParameters
) -> ConvGeometry:
    stride, padding, dilation, groups, _, mode = parameters
    return conv_kernel_geometry(input_size, weight_size, stride, padding, dilation, groups, mode)


def geometry_of(input_size: Sequence[int], weight_size: Sequence[int], parameters: ConvParameters) -> ConvGeometry:
    """The geometry of plain sizes, remembered: checking it again would cost more than a small kernel."""
    try:
        return _remembered_geometry(input_size, weight_size, parameters)
    except TypeError:  # lists, as the dispatcher makes them, have no hash
        plain = (tuple(part) if isinstance(part, list) else part for part in parameters)
        return _remembered_geometry(tuple(input_size), tuple(weight_size), ConvParameters(*plain))


def fake_geometry(input_size: Sequence[int], weight_size: Sequence[int], parameters: ConvParameters) -> ConvGeometry:
    """The geometry of sizes that may be symbols."""
    stride, padding, dilation, groups, _, mode = parameters
    return conv_geometry(of_planes(input_size), weight_size, stride, padding, dilation, groups, mode)


def layout_beside(size: Sequence[int], stride: Sequence[int], other: Tensor) -> Layout:
    """channels_last where the input or the filter is, as PyTorch; the gradients take their forward's layout."""
    if is_channels_last(size, stride) or is_channels_last(other.shape, other.stride()):
        return Layout.NHWC
    return Layout.NCHW


def _bilinear_jvp(operator: Callable[..., Tensor], inputs: tuple[Any, ...], tangents: tuple[Any, ...]) -> Tensor:
    """Of an operator that is linear in each of its first two arguments."""
    first, second, *rest = inputs
    terms = []
    if tangents[0] is not None:
        terms.append(operator(tangents[0], second, *rest))
    if tangents[1] is not None:
        terms.append(operator(first, tangents[1], *rest))
    return sum(terms[1:], terms[0])


def with_border(
    kernel: Kernel,
    direction: str,
    operands: tuple[Tensor, Tensor],
    geometry: ConvGeometry,
    layout: Layout,
    parameters: ConvParameters,
) -> tuple[Tensor, Tensor, ConvGeometry]:
    """A kernel's operands and geometry; the image has its border where the kernel cannot read it through the index."""
    first, second = operands
    if geometry.padding_mode is PaddingMode.ZEROS:
        return first, second, geometry
    why_copy = kernel.of.conv_why_copy_border
    if not kernel.depthwise and not why_copy(direction, first, second, geometry, layout, *kernel.tf32):
        return first, second, geometry
    image = second if direction == "backward_weight" else first
    image = dense(pad_border.run(image, *parameters.border), layout)
    geometry = geometry.on_padded_image(*image.shape[2:])
    return (first, image, geometry) if direction == "backward_weight" else (image, second, geometry)


# Below, for each operator: its fake kernel, its run on plain tensors, its derivative, its batching rule. `parameters`
# are the schema's last, `ConvParameters`. A padding mode maps x to a larger image linearly, so the derivatives are the
# same operators in the same mode.
# A batching rule folds the new axis into N where the filter has none, else into the groups: a batch of filters is a
# grouped convolution.


# --- forward: F(x, w) + b


def forward_fake(input: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Any) -> Tensor:
    return forward_output(input, weight, fake_geometry(input.shape, weight.shape, ConvParameters(*parameters)))[0]


def forward_output(input: Tensor, weight: Tensor, geometry: ConvGeometry) -> tuple[Tensor, Layout]:
    layout = layout_beside(input.shape, input.stride(), weight)
    shape = (geometry.n, geometry.k, geometry.p, geometry.q)
    memory_format = layout.memory_format
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format), layout


def _forward_run(input: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    parameters = ConvParameters(*rest)
    geometry = geometry_of(input.shape, weight.shape, parameters)
    output, layout = forward_output(input, weight, geometry)
    if input.numel() == 0:
        return output.zero_() if bias is None else output.copy_(bias[:, None, None])
    kernel = kernel_of("forward", input, geometry, parameters.backend)
    operands = dense(input, layout), dense(weight, layout)
    input, weight, geometry = with_border(kernel, "forward", operands, geometry, layout, parameters)
    bias = None if bias is None else bias.contiguous()
    kernel.launch(input, weight, bias, output, geometry, layout, *kernel.tf32)
    return output


def forward_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, _, *ctx.parameters = inputs
    of_input, of_weight, *_ = ctx.needs_input_grad
    ctx.input_like = (input.shape, gradient_stride(input))
    ctx.weight_like = (weight.shape, gradient_stride(weight))
    ctx.save_for_backward(input if of_weight else None, weight if of_input else None)


def forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    of_input, of_weight, of_bias, *_ = ctx.needs_input_grad
    grad_input = grad_weight = grad_bias = None
    if of_input:
        grad_input = conv_backward_input(grad, weight, *ctx.input_like, *ctx.parameters)
    if of_weight:
        grad_weight = conv_backward_weight(grad, input, *ctx.weight_like, *ctx.parameters)
    if of_bias:
        grad_bias = conv_backward_bias(grad, ConvParameters(*ctx.parameters).backend)
    return grad_input, grad_weight, grad_bias, *[None] * len(ctx.parameters)


def forward_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    input, weight, bias, *rest = args
    of_input, of_weight, of_bias, *_ = in_dims
    size, parameters = info.batch_size, ConvParameters(*rest)
    if of_weight is None and of_bias is None:
        return unfold(conv_forward(fold(input, of_input, size, 0), weight, bias, *parameters), size, 0)
    weight = fold(weight, of_weight, size, 0)
    bias = None if bias is None else fold(bias, of_bias, size, 0)
    if of_input is None and parameters.groups == 1:
        return unfold(conv_forward(input, weight, bias, *parameters), size, 1)
    input = fold(input, of_input, size, 1)
    return unfold(conv_forward(input, weight, bias, *parameters.in_more_groups(size)), size, 1)


def forward_jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    input, weight, _, *parameters = inputs
    of_input, of_weight, of_bias, *_ = tangents
    terms = []
    if of_input is not None:
        terms.append(conv_forward(of_input, weight, None, *parameters))
    if of_weight is not None:
        terms.append(conv_forward(input, of_weight, None, *parameters))
    if of_bias is not None:
        terms.append(of_bias[:, None, None].expand_as(outputs[0]))
    return sum(terms[1:], terms[0])


# --- backward_input: I(g, w), the error convolved with the filter rotated by 180 degrees


def _backward_input_fake(
    grad_output: Tensor, weight: Tensor, size: Sequence[int], stride: Sequence[int], *parameters: Any
) -> Tensor:
    return torch.empty_strided(size, stride, dtype=grad_output.dtype, device=grad_output.device)


def _backward_input_run(
    grad_output: Tensor, weight: Tensor, size: Sequence[int], stride: Sequence[int], *rest: Any
) -> Tensor:
    parameters = ConvParameters(*rest)
    grad_input = _backward_input_fake(grad_output, weight, size, stride)
    geometry = geometry_of(size, weight.shape, parameters)
    if grad_input.numel() == 0:
        return grad_input
    layout = layout_beside(size, stride, weight)
    if geometry.padding_mode is not PaddingMode.ZEROS:
        before, after = parameters.padding[::2], parameters.padding[1::2]
        padded = (*size[:2], *(sum(extents) for extents in zip(before, size[2:], after, strict=True)))
        unpadded = parameters._replace(padding=(0,) * len(parameters.padding), padding_mode="zeros")
        of_padded = _backward_input_run(grad_output, weight, padded, dense_stride(padded, layout), *unpadded)
        folded = fold_border.run(of_padded, *parameters.border)
        return folded if folded.stride() == grad_input.stride() else grad_input.copy_(folded)
    kernel = kernel_of("backward_input", weight, geometry, parameters.backend)
    grad_output, weight = dense(grad_output, layout), dense(weight, layout)
    numbers = geometry, layout, *kernel.tf32
    return filled(grad_input, layout, lambda out: kernel.launch(grad_output, weight, out, *numbers))


def _backward_input_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_output, weight, _, _, *ctx.parameters = inputs
    of_grad, of_weight, *_ = ctx.needs_input_grad
    ctx.weight_like = (weight.shape, gradient_stride(weight))
    ctx.save_for_backward(grad_output if of_weight else None, weight if of_grad else None)


def _backward_input_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grad_output, weight = ctx.saved_tensors
    of_grad, of_weight, *_ = ctx.needs_input_grad
    by_grad = conv_forward(grad, weight, None, *ctx.parameters) if of_grad else None
    by_weight = conv_backward_weight(grad_output, grad, *ctx.weight_like, *ctx.parameters) if of_weight else None
    return by_grad, by_weight, None, None, *[None] * len(ctx.parameters)


def _backward_input_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    grad_output, weight, (n, c, *sizes), stride, *rest = args
    of_grad, of_weight, *_ = in_dims
    size, parameters = info.batch_size, ConvParameters(*rest)
    layout = Layout.NHWC if is_channels_last((n, c, *sizes), stride) else Layout.NCHW
    if of_weight is None:
        grad_output, whole, axis = fold(grad_output, of_grad, size, 0), (size * n, c, *sizes), 0
    else:
        grad_output, whole, axis = fold(grad_output, of_grad, size, 1), (n, size * c, *sizes), 1
        weight, parameters = fold(weight, of_weight, size, 0), parameters.in_more_groups(size)
    grad = conv_backward_input(grad_output, weight, whole, dense_stride(whole, layout), *parameters)
    return unfold(grad, size, axis)


# --- backward_weight: W(g, x), the input correlated with the error


def _backward_weight_fake(
    grad_output: Tensor, input: Tensor, size: Sequence[int], stride: Sequence[int], *parameters: Any
) -> Tensor:
    return torch.empty_strided(size, stride, dtype=grad_output.dtype, device=grad_output.device)


def _backward_weight_run(
    grad_output: Tensor, input: Tensor, size: Sequence[int], stride: Sequence[int], *rest: Any
) -> Tensor:
    parameters = ConvParameters(*rest)
    grad_weight = _backward_weight_fake(grad_output, input, size, stride)
    geometry = geometry_of(input.shape, size, parameters)
    if input.numel() == 0:
        return grad_weight.zero_()
    layout = layout_beside(size, stride, input)
    kernel = kernel_of("backward_weight", input, geometry, parameters.backend)
    operands = dense(grad_output, layout), dense(input, layout)
    grad_output, input, geometry = with_border(kernel, "backward_weight", operands, geometry, layout, parameters)
    numbers = geometry, layout, *kernel.tf32
    return filled(grad_weight, layout, lambda out: kernel.launch(grad_output, input, out, *numbers))


def _backward_weight_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_output, input, _, _, *ctx.parameters = inputs
    of_grad, of_input, *_ = ctx.needs_input_grad
    ctx.input_like = (input.shape, gradient_stride(input))
    ctx.save_for_backward(grad_output if of_input else None, input if of_grad else None)


def _backward_weight_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grad_output, input = ctx.saved_tensors
    of_grad, of_input, *_ = ctx.needs_input_grad
    by_grad = conv_forward(input, grad, None, *ctx.parameters) if of_grad else None
    by_input = conv_backward_input(grad_output, grad, *ctx.input_like, *ctx.parameters) if of_input else None
    return by_grad, by_input, None, None, *[None] * len(ctx.parameters)


def _backward_weight_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    grad_output, input, (k, *filter), stride, *rest = args
    of_grad, of_input, *_ = in_dims
    size, parameters = info.batch_size, ConvParameters(*rest)
    layout = Layout.NHWC if is_channels_last((k, *filter), stride) else Layout.NCHW
    whole = (size * k, *filter)
    grad_output = fold(grad_output, of_grad, size, 1)
    if of_input is not None or parameters.groups != 1:
        input, parameters = fold(input, of_input, size, 1), parameters.in_more_groups(size)
    grad = conv_backward_weight(grad_output, input, whole, dense_stride(whole, layout), *parameters)
    return unfold(grad, size, 0)


# --- backward_bias: the sum of g over n, p, q


def _backward_bias_fake(grad_output: Tensor, backend: str) -> Tensor:
    return torch.empty(grad_output.shape[1], dtype=grad_output.dtype, device=grad_output.device)


@functools.lru_cache(maxsize=4096)
def _one_by_one(n: int, k: int, p: int, q: int) -> ConvGeometry:
    """The sum needs n, k, p, q alone."""
    return ConvGeometry.of_axes(n, 1, k, 1, (Axis(p, 1, p), Axis(q, 1, q)))


def _backward_bias_run(grad_output: Tensor, backend: str) -> Tensor:
    grad_bias = _backward_bias_fake(grad_output, backend)
    if grad_output.numel() == 0:
        return grad_bias.zero_()
    n, k, p, q = grad_output.shape
    layout = layout_of(grad_output)
    kernel = backends.kernels(backend, grad_output.device.type).conv_backward_bias
    kernel(dense(grad_output, layout), grad_bias, _one_by_one(n, k, p, q), layout)
    return grad_bias


def _backward_bias_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.size = inputs[0].shape


def _backward_bias_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return grad[:, None, None].expand(ctx.size), None


def _backward_bias_vmap(info: Any, in_dims: tuple[Any, ...], grad_output: Tensor, backend: str) -> tuple[Tensor, int]:
    size = info.batch_size
    return unfold(conv_backward_bias(fold(grad_output, in_dims[0], size, 1), backend), size, 0)


conv_forward: Operator = Operator(
    f"conv_forward(Tensor input, Tensor weight, Tensor? bias, {PARAMETERS}) -> Tensor",
    _forward_run,
    forward_fake,
    forward_vmap,
    forward_setup,
    forward_backward,
    forward_jvp,
)
conv_backward_input: Operator = Operator(
    "conv_backward_input(Tensor grad_output, Tensor weight, SymInt[] input_size, SymInt[] input_stride, "
    f"{PARAMETERS}) -> Tensor",
    _backward_input_run,
    _backward_input_fake,
    _backward_input_vmap,
    _backward_input_setup,
    _backward_input_backward,
    lambda inputs, _, tangents: _bilinear_jvp(conv_backward_input, inputs, tangents),
)
conv_backward_weight: Operator = Operator(
    "conv_backward_weight(Tensor grad_output, Tensor input, SymInt[] weight_size, SymInt[] weight_stride, "
    f"{PARAMETERS}) -> Tensor",
    _backward_weight_run,
    _backward_weight_fake,
    _backward_weight_vmap,
    _backward_weight_setup,
    _backward_weight_backward,
    lambda inputs, _, tangents: _bilinear_jvp(conv_backward_weight, inputs, tangents),
)
conv_backward_bias: Operator = Operator(
    "conv_backward_bias(Tensor grad_output, str backend) -> Tensor",
    _backward_bias_run,
    _backward_bias_fake,
    _backward_bias_vmap,
    _backward_bias_setup,
    _backward_bias_backward,
    lambda inputs, _, tangents: conv_backward_bias(tangents[0], inputs[1]),
)


register_autocast("conv_forward", tensors=3)
