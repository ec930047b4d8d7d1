"""PyTorch's functional signatures over the project's kernels.

Each call asks `cnnkernels.backends` which backend serves it. "reference" is PyTorch's own operator, called as it
stands. Bad input raises PyTorch's type of error, with a message that names the argument and the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from .activation import NEGATIVE_SLOPE, checked_activation
from .arguments import (
    Ints,
    as_pair,
    check_conv2d_tensors,
    check_dimensions,
    check_is_tensor,
    named_padding,
    under_autocast,
    unpooled_size,
)
from .backends import serving
from .epilogue import Epilogue
from .ops import conv2d as _conv2d
from .ops import depthwise_separable_conv2d as _depthwise_separable
from .ops import max_pool2d as _max_pool2d
from .ops import max_unpool2d as _max_unpool2d
from .ops.checks import check_depthwise_separable_tensors
from .ops.conv2d_epilogue import check_epilogue, epilogue_conv2d

__all__ = [
    "conv2d",
    "depthwise_conv2d",
    "depthwise_separable_conv2d",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_unpool2d",
]

_reference: Any = torch.nn.functional  # its annotations know fewer kinds of sequence than it takes


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation), as `torch.nn.functional.conv2d`, with what follows it.

        output[n,k,p,q] = activation(scale[k] (sum + bias[k]) + shift[k] + residual[n,k,p,q]),   sum = sum over c,r,s of
            input[n, c, p stride - padding + r dilation, q stride - padding + s dilation] weight[k,c,r,s]

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 (PyTorch's own operator, the backend
            "reference", takes more). 16-bit types are summed in float32 and rounded once. float32 is multiplied in
            tf32 exactly where `torch.backends.cudnn.conv.fp32_precision` is "tf32", in the interpreter too.
        weight: [K, C / groups, R, S], of input's dtype and device.
        bias: [K] or None.
        stride, dilation: an int or a pair (rows, columns), at least 1.
        padding: an int or a pair of zeros on both sides, "valid" (none), or "same" (output as large as input; the
            odd one of an uneven total goes after the last row or column; stride 1 only).
        groups: splits channels into that many independent convolutions.
        activation: None, "relu", "relu6", "leaky_relu", "silu", "gelu" (the exact one) or "hardswish".
        residual: of output's size, added before the activation; of any strides, best of output's.
        scale, shift: [K], a batch norm that was folded, say. They and residual are of input's dtype and device. All of
            it is computed in the sums' precision and rounded once, by the kernels themselves (of a depthwise
            convolution by PyTorch, in a second pass).
        negative_slope: leaky_relu's factor below zero.

    Returns:
        [N, K, P, Q] or [K, P, Q] with P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1; channels_last
        where input or weight is, else contiguous. Gradients of input and weight have their strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.conv2d` raises them, and for a residual, scale or shift of
            another size, dtype or device.
        ValueError: no activation is called so.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.
    """
    if has_torch_function_variadic(input, weight, bias, residual, scale, shift):
        given = (input, weight, bias, residual, scale, shift)
        fused = {"activation": activation, "residual": residual, "scale": scale, "shift": shift}
        fused = {name: value for name, value in fused.items() if value is not None}
        if negative_slope != NEGATIVE_SLOPE:
            fused["negative_slope"] = negative_slope
        return handle_torch_function(
            conv2d, given, input, weight, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups,
            **fused,
        )  # fmt: skip
    epilogue = None
    if activation is not None or residual is not None or scale is not None or shift is not None:
        name, slope = checked_activation("conv2d", activation, negative_slope)
        for argument, tensor in (("residual", residual), ("scale", scale), ("shift", shift)):
            if tensor is not None:
                check_is_tensor("conv2d", argument, tensor)
        epilogue = Epilogue(scale, shift, residual, name, slope)
    return _convolve("conv2d", input, weight, bias, stride, padding, dilation, groups, epilogue)


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Correlates each channel with filters of its own: `conv2d` with groups = C, which runs the same kernels.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 ("reference" takes more).
        weight: [C m, 1, R, S]; filters m c to m c + m - 1 read channel c. m is the channel multiplier.
        bias: [C m] or None.
        stride, padding, dilation: as conv2d's.

    Returns:
        [N, C m, P, Q] or [C m, P, Q], of conv2d's sizes and memory format.

    Raises:
        TypeError, RuntimeError, NotImplementedError, ImportError: as conv2d, and RuntimeError where weight is not of
            one channel or its filters are not a multiple of input's channels.
    """
    if has_torch_function_variadic(input, weight, bias):
        given = (input, weight, bias)
        return handle_torch_function(
            depthwise_conv2d, given, input, weight, bias=bias, stride=stride, padding=padding, dilation=dilation
        )
    check_is_tensor("depthwise_conv2d", "input", input)
    check_is_tensor("depthwise_conv2d", "weight", weight)
    check_dimensions("depthwise_conv2d", input, weight)
    channels = int(input.shape[-3])
    if weight.shape[1] != 1 or channels == 0 or weight.shape[0] % channels != 0 or weight.shape[0] == 0:
        raise RuntimeError(
            f"depthwise_conv2d: expected weight to be of size [{channels} m, 1, R, S] for input of size "
            f"{list(input.shape)}, but got weight of size {list(weight.shape)}"
        )
    return _convolve("depthwise_conv2d", input, weight, bias, stride, padding, dilation, channels)


def _convolve(
    op: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """conv2d, under the name that its errors give it."""
    check_is_tensor(op, "input", input)
    check_is_tensor(op, "weight", weight)
    if bias is not None:
        check_is_tensor(op, "bias", bias)
    given = input, weight, bias
    device = input.device
    if under_autocast(device):
        input, weight, bias = _conv2d.cast_for_autocast(device.type, input, weight, bias)
        if epilogue is not None:
            epilogue = Epilogue(*_conv2d.cast_for_autocast(device.type, *epilogue[:3]), *epilogue[3:])
    backend = serving(op, device, input.dtype)
    if backend == "reference" or input.numel() == 0:
        output = _reference.conv2d(*given, stride, padding, dilation, groups)  # casts for itself
        if epilogue is None:
            return output
        check_epilogue(op, output, epilogue, output.shape)
        return epilogue.apply(output)
    check_conv2d_tensors(op, input, weight, bias)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{op}(): argument 'groups' must be int, but got groups={groups!r}")
    strides = as_pair(op, "stride", stride)
    dilations = as_pair(op, "dilation", dilation)
    if isinstance(padding, str):
        sides = named_padding(padding, weight.shape[-2:], strides, dilations)
    else:
        rows, columns = as_pair(op, "padding", padding)
        sides = rows, rows, columns, columns
    parameters = strides, sides, dilations, groups, backend
    if epilogue is not None:
        return epilogue_conv2d(op, input, weight, bias, epilogue, parameters)
    if input.dim() == 4:
        return _conv2d.conv2d_forward(input, weight, bias, *parameters)
    return _conv2d.conv2d_forward(input.unsqueeze(0), weight, bias, *parameters).squeeze(0)


def depthwise_separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    pointwise_bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    depthwise_activation: str | None = None,
    pointwise_activation: str | None = None,
    save_intermediate: bool = False,
    negative_slope: float = NEGATIVE_SLOPE,
) -> Tensor:
    """A depthwise convolution and the 1x1 convolution after it, in one kernel (Howard et al., MobileNets, 2017).

        intermediate = depthwise_activation(conv2d(input, depthwise_weight, depthwise_bias, ..., groups=C))
        output = pointwise_activation(conv2d(intermediate, pointwise_weight, pointwise_bias))

    The intermediate stays on the chip. It is rounded to input's dtype once, after its activation.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16.
        depthwise_weight: [C multiplier, 1, R, S]; channel c makes the intermediate's channels c multiplier and on.
        pointwise_weight: [K, C multiplier, 1, 1]. Its products are tf32 where `conv2d`'s may be.
        depthwise_bias, pointwise_bias: [C multiplier] and [K], or None.
        stride, padding, dilation: the depthwise convolution's, as `conv2d` takes them.
        depthwise_activation, pointwise_activation: one of `cnnkernels.activation.ACTIVATIONS`, or None.
        save_intermediate: keep the intermediate (before its activation) for the backward pass, which otherwise
            computes it anew, with the same bits: N C multiplier P Q more elements of memory for less work.
        negative_slope: leaky_relu's.

    Returns:
        [N, K, P, Q] or [K, P, Q]; channels_last where input or a filter is. Gradients have their tensors' strides.

    Raises:
        TypeError, RuntimeError, ValueError: naming the argument and its value.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.
    """
    tensors = input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            depthwise_separable_conv2d,
            tensors,
            *tensors,
            stride=stride,
            padding=padding,
            dilation=dilation,
            depthwise_activation=depthwise_activation,
            pointwise_activation=pointwise_activation,
            save_intermediate=save_intermediate,
            negative_slope=negative_slope,
        )
    op = "depthwise_separable_conv2d"
    names = "input", "depthwise_weight", "pointwise_weight", "depthwise_bias", "pointwise_bias"
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None or not name.endswith("bias"):
            check_is_tensor(op, name, tensor)
    if not isinstance(save_intermediate, bool):
        raise TypeError(f"{op}(): argument 'save_intermediate' must be bool, but got {save_intermediate!r}")
    first, slope = checked_activation(op, depthwise_activation, negative_slope, "depthwise_activation")
    second, _ = checked_activation(op, pointwise_activation, negative_slope, "pointwise_activation")
    if under_autocast(input.device):
        tensors = _conv2d.cast_for_autocast(input.device.type, *tensors)
    input, depthwise_weight = tensors[:2]
    backend = serving(op, input.device, input.dtype)
    check_depthwise_separable_tensors(*tensors)
    if backend == "reference" or input.numel() == 0:
        return _depthwise_separable.reference(*tensors, stride, padding, dilation, (first, second, slope))
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    if isinstance(padding, str):
        sides = named_padding(padding, depthwise_weight.shape[-2:], strides, dilations)
    else:
        rows, columns = as_pair(op, "padding", padding)
        sides = rows, rows, columns, columns
    parameters = save_intermediate, strides, sides, dilations, int(input.shape[-3]), first, second, slope, backend
    if input.dim() == 4:
        return _depthwise_separable.depthwise_separable_conv2d_forward(*tensors, *parameters)[0]
    batch = input.unsqueeze(0), *tensors[1:]
    return _depthwise_separable.depthwise_separable_conv2d_forward(*batch, *parameters)[0].squeeze(0)


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each window, as `torch.nn.functional.max_pool2d`.

    The first of equal maxima wins, the last NaN wins, and a window of -inf alone gives its first place inside.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 ("reference" takes more).
        kernel_size, stride, padding, dilation: an int or a pair (rows, columns); stride None is kernel_size,
            padding is -inf on both sides, at most half of kernel_size.
        ceil_mode: rounds the output's size up; the last window must start inside input or the padding before it.
        return_indices: also return each winner's index h W + w, int64.

    Returns:
        [N, C, P, Q] or [C, P, Q] with P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1, channels_last
        where input is; with `return_indices` also the indices. The gradient has input's strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.max_pool2d` raises them.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(
            max_pool2d,
            (input,),
            input,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
            return_indices=return_indices,
        )
    check_is_tensor("max_pool2d", "input", input)
    backend = serving("max_pool2d", input.device, input.dtype)
    if backend == "reference" or input.numel() == 0:
        return _reference.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"non-empty 3D or 4D (batch mode) tensor expected for input, but got input of size: {list(input.shape)}"
        )
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"max_pool2d(): argument 'ceil_mode' must be bool, but got ceil_mode={ceil_mode!r}")
    window = as_pair("max_pool2d", "kernel_size", kernel_size)
    defaulted = stride is None or (isinstance(stride, Sequence) and len(stride) == 0)
    parameters = (
        window,
        window if defaulted else as_pair("max_pool2d", "stride", stride),
        as_pair("max_pool2d", "padding", padding),
        as_pair("max_pool2d", "dilation", dilation),
        ceil_mode,
        backend,
    )
    batch = input if input.dim() == 4 else input.unsqueeze(0)
    output, argmax = _max_pool2d.max_pool2d_forward(batch, *parameters)
    if input.dim() == 3:
        output = output.squeeze(0)
    if not return_indices:
        return output
    indices = _max_pool2d.max_pool2d_indices(argmax, batch.shape, *parameters)
    return output, indices if input.dim() == 4 else indices.squeeze(0)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool2d` with `return_indices=True`: the maxima and their int64 indices h W + w."""
    output, indices = max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)
    return output, indices


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts values back where `max_pool2d` found them, zeros elsewhere, as `torch.nn.functional.max_unpool2d`.

    Where indices repeat, the last one in row-major order wins (PyTorch leaves it open). The gradient reads
    grad_output at every index, as PyTorch's does.

    Args:
        input: [N, C, P, Q] or [C, P, Q]; float64, float32, float16 or bfloat16.
        indices: int64 h W + w into the output's planes, of input's shape.
        kernel_size, stride, padding: those of the pooling; they give output's default size
            (P - 1) stride - 2 padding + kernel_size.
        output_size: (H, W) or output's whole shape, less than a stride away from the default.

    Returns:
        [N, C, H, W] or [C, H, W]; channels_last where input is, on CUDA too (PyTorch's is contiguous there).

    Raises:
        ValueError, RuntimeError: where `torch.nn.functional.max_unpool2d` raises them. An index outside the output
            raises on the CPU alone; on a GPU, where looking would wait for the device, it is left out.
    """
    if has_torch_function_variadic(input, indices):
        return handle_torch_function(
            max_unpool2d,
            (input, indices),
            input,
            indices,
            kernel_size,
            stride=stride,
            padding=padding,
            output_size=output_size,
        )
    check_is_tensor("max_unpool2d", "input", input)
    check_is_tensor("max_unpool2d", "indices", indices)
    if under_autocast(input.device):
        input = _max_unpool2d.cast_for_autocast(input)
    backend = serving("max_unpool2d", input.device, input.dtype)
    if backend == "reference" or input.numel() == 0:
        return _reference.max_unpool2d(input, indices, kernel_size, stride, padding, output_size)
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Input to max_unpooling2d should be a 3d or 4d Tensor, but got a tensor with {input.dim()} dimensions."
        )
    if indices.dtype != torch.int64:
        raise RuntimeError(f"elements in indices should be type int64 but got: {indices.dtype}")
    if indices.shape != input.shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) "
            f"but got indices tensor with shape: {list(indices.shape)}"
        )
    if indices.device != input.device:
        raise RuntimeError(
            "Expected all tensors to be on the same device, "
            f"but got input on {input.device} and indices on {indices.device}"
        )
    window = as_pair("max_unpool2d", "kernel_size", kernel_size)
    steps = window if stride is None else as_pair("max_unpool2d", "stride", stride)
    size = unpooled_size(input.shape[-2:], window, steps, as_pair("max_unpool2d", "padding", padding), output_size)
    if input.dim() == 4:
        return _max_unpool2d.max_unpool2d_forward(input, indices, size, backend)
    return _max_unpool2d.max_unpool2d_forward(input.unsqueeze(0), indices.unsqueeze(0), size, backend).squeeze(0)
