"""Convolution of INT8 images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..dtypes import INT8_DTYPES, ROUNDED_DTYPES
from ..ops import int8_conv as _int8_conv2d
from ..ops.checks import conv_geometry
from ..ops.int8_epilogue import flat
from .arguments import Ints, as_int, as_pair, check_device, check_dimensions, check_groups, check_is_tensor, sides
from .int8_arguments import (
    LAYER,
    Given,
    check_operand,
    check_reduction,
    checked_epilogue,
    checked_input,
    refuse_gradients,
)
from .quantize import quantize_per_tensor
from .served import served


def int8_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    input_scale: float | Tensor | None = None,
    weight_scale: float | Tensor | None = None,
    input_zero_point: int | None = None,
    activation: str | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
    residual: Tensor | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int | None = None,
    out_dtype: torch.dtype | None = None,
    out_scale: float | Tensor | None = None,
    out_zero_point: int | None = None,
    weight_sum: Tensor | None = None,
) -> Tensor:
    """Two-dimensional convolution of INT8 images with INT8 filters, with what follows it, in one kernel.

        sum[n,k,p,q] = sum over c,r,s of (input[n, c, p stride - padding + r dilation, ...] - input_zero_point)
                       weight[k,c,r,s]                                                        exact, in int32

    What lies in the padding is worth input_zero_point, and so adds nothing. Scales, bias, residual, activation and
    output are `int8_gemm`'s epilogue, where a pixel is a row and a filter a column: an int8 output with out_scale and
    out_zero_point is the next convolution's input, with those as input_scale and input_zero_point.

    Args:
        input: [N, C, H, W] or [C, H, W], best channels_last; int8 or uint8, or floating, which is quantized first, with
            input_scale and input_zero_point.
        weight: [K, C / groups, R, S], best channels_last; int8.
        bias: float32 [K].
        stride, padding, dilation, groups: as `conv2d`'s.
        input_scale: a positive number or a float32 tensor of one element. None is 1 for integers.
        weight_scale: a number or a float32 tensor: one element, or one for each filter ([K] or [K, 1, 1, 1]). None
            is 1.
        input_zero_point: the integer that stands for 0.
        weight_sum: int32 [K], each filter's sum, where it is known: an input with a zero point needs it. It is not
            checked.
        activation, negative_slope, residual, residual_scale, residual_zero_point, out_scale, out_zero_point: as
            `int8_gemm`'s; residual is of the output's size, best channels_last.
        out_dtype: as `int8_gemm`'s, but None is a floating input's own dtype (float32 for float64) where out_scale is
            None.

    Returns:
        [N, K, P, Q] or [K, P, Q] of `conv2d`'s sizes, always channels_last in memory.

    Raises:
        TypeError, RuntimeError, ValueError, NotImplementedError, ImportError: as `conv2d` and `int8_gemm`, whose K is
            C R S / groups here.

    Example:
        >>> image, weight = torch.ones(1, 4, 3, 3, dtype=torch.int8), torch.ones(8, 4, 3, 3, dtype=torch.int8)
        >>> sums = cnnkernels.functional.int8_conv2d(image, weight)
        >>> sums.shape, sums.dtype, sums[0, 0, 0, 0].item()
        (torch.Size([1, 8, 1, 1]), torch.int32, 36)
    """
    op = "int8_conv2d"
    tensors = (input, weight, bias, input_scale, weight_scale, residual, out_scale, weight_sum)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            int8_conv2d, tensors, input, weight, bias, stride, padding, dilation, groups, input_scale=input_scale,
            weight_scale=weight_scale, input_zero_point=input_zero_point, activation=activation,
            negative_slope=negative_slope, residual=residual, residual_scale=residual_scale,
            residual_zero_point=residual_zero_point, out_dtype=out_dtype, out_scale=out_scale,
            out_zero_point=out_zero_point, weight_sum=weight_sum,
        )  # fmt: skip
    check_is_tensor(op, "input", input)
    check_operand(op, "weight", weight, (torch.int8,), 4)
    check_dimensions(op, input, weight)
    check_device("weight", weight, "input", input.device)
    refuse_gradients(op, input=input)
    default = None
    if input.is_floating_point():
        default = input.dtype if input.dtype in ROUNDED_DTYPES else torch.float32
        if input_scale is None:
            raise ValueError(f"{op}: an input of {input.dtype} needs input_scale")
        input, _ = quantize_per_tensor(input, *checked_input(op, input, input_scale, input_zero_point))
    check_operand(op, "input", input, INT8_DTYPES, input.dim())
    check_groups(op, groups)
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    padded = sides(op, weight.shape[2:], strides, padding, dilations)
    if input_zero_point is not None:
        input_zero_point = as_int(op, "input_zero_point", input_zero_point)
    unbatched = input.dim() == 3
    if unbatched:
        input = input.unsqueeze(0)
        residual = residual.unsqueeze(0) if isinstance(residual, Tensor) else residual
    g = conv_geometry(input.shape, weight.shape, strides, padded, dilations, groups)
    given = Given(
        scale_a=input_scale, scale_b=weight_scale, zero_point_a=input_zero_point, bias=bias, residual=residual,
        residual_scale=residual_scale, residual_zero_point=residual_zero_point, activation=activation,
        negative_slope=negative_slope, out_dtype=out_dtype, out_scale=out_scale, out_zero_point=out_zero_point,
        sums_b=weight_sum,
    )  # fmt: skip
    check_reduction(op, LAYER, input, weight.shape[1] * g.r * g.s, given)
    size, filters = (g.n, g.k, g.p, g.q), ((g.k,), (g.k, 1, 1, 1))
    epilogue, dtype = checked_epilogue(op, LAYER, input, given, size, (), filters, default)
    numbers = strides, padded, dilations, groups, *flat(epilogue), dtype
    output = served(op, _int8_conv2d.int8_conv, input.dtype, input, weight, *numbers)
    return output.squeeze(0) if unbatched else output
