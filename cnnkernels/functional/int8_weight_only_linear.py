"""The linear layer whose weight alone is INT8."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..backends import serving
from ..dtypes import ROUNDED_DTYPES
from ..int8.reference import widened_linear
from ..ops import int8_weight_only_linear as _int8_weight_only_linear
from ..ops.int8_epilogue import flat
from .arguments import check_device, check_is_tensor, under_autocast
from .int8_arguments import LAYER, Given, check_operand, checked_epilogue
from .served import served


def int8_weight_only_linear(
    input: Tensor,
    weight: Tensor,
    weight_scale: float | Tensor | None = None,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
    residual: Tensor | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """A linear layer of floating inputs with an INT8 weight, which is read as it is: one byte a number.

        sum[m, n] = sum over k of input[m, k] weight[n, k]
        x = sum[m, n] weight_scale[n];   x = x + bias[n];   x = x + residual[m, n];   x = activation(x)

    in fp32, rounded once to the output's dtype. Of up to 16 rows the CUDA kernel adds in one order, that of
    docs/int8_weight_only_linear.md, so that a row's bits depend neither on its neighbours nor on the GPU; Triton's
    kernel has an order of its own, which does not depend on a row's neighbours.

    PyTorch multiplies by the widened weight, which is written and read as 2 or 4 bytes a number for that, in three
    cases: on the CUDA backend of more than 16 rows, where the product takes longer than that; where a gradient through
    input or residual is wanted; and of float64. The weight then is weight weight_scale, rounded to the input's dtype.

    Args:
        input: [..., K] or [K]; float32, float16, bfloat16 or float64; under autocast its dtype is autocast's.
        weight: [N, K]; int8. Rows of consecutive bytes, at multiples of 16 of them, are the fast ones.
        weight_scale: a positive number or a float32 tensor: one element, or one for each output ([N] or [N, 1]). None
            is 1.
        bias: float32 [N].
        activation, negative_slope, residual, residual_scale, residual_zero_point: as `int8_gemm`'s; residual is of the
            output's size.
        out_dtype: float32, float16 or bfloat16; None is the input's.

    Returns:
        [..., N], contiguous.

    Raises:
        TypeError, RuntimeError, ValueError, NotImplementedError, ImportError: as `int8_gemm`; but input and a floating
            residual may require a gradient.

    Example:
        >>> rows, weight = torch.ones(1, 4), torch.full((2, 4), 5, dtype=torch.int8)
        >>> cnnkernels.functional.int8_weight_only_linear(rows, weight, torch.tensor([0.5, 2.0]))
        tensor([[10., 40.]])
    """
    op = "int8_weight_only_linear"
    tensors = (input, weight, weight_scale, bias, residual)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            int8_weight_only_linear, tensors, input, weight, weight_scale, bias, activation=activation,
            negative_slope=negative_slope, residual=residual, residual_scale=residual_scale,
            residual_zero_point=residual_zero_point, out_dtype=out_dtype,
        )  # fmt: skip
    check_is_tensor(op, "input", input)
    check_operand(op, "input", input, (*ROUNDED_DTYPES, torch.float64), input.dim())
    check_operand(op, "weight", weight, (torch.int8,), 2)
    if input.dim() == 0 or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"{op}: expected input to be of size [..., {weight.shape[1]}] for weight of size {list(weight.shape)}, but "
            f"got {list(input.shape)}"
        )
    check_device("weight", weight, "input", input.device)
    if out_dtype is not None and out_dtype not in (*ROUNDED_DTYPES, input.dtype):
        raise ValueError(f"{op}: out_dtype must be float32, float16 or bfloat16, but got out_dtype={out_dtype}")
    if under_autocast(input.device) and input.dtype is not torch.float64:
        input = input.to(torch.get_autocast_dtype(input.device.type))
    leading, (n, k) = input.shape[:-1], weight.shape
    size, m = (*leading, n), math.prod(leading)
    if isinstance(residual, Tensor):
        if residual.shape != size:
            raise RuntimeError(f"{op}: expected residual to be of size {list(size)}, but got {list(residual.shape)}")
        residual = residual.reshape(m, n)
    rows, dtype = input.reshape(m, k), out_dtype or input.dtype
    given = Given(
        scale_b=weight_scale, bias=bias, residual=residual.detach() if isinstance(residual, Tensor) else residual,
        residual_scale=residual_scale, residual_zero_point=residual_zero_point, activation=activation,
        negative_slope=negative_slope, out_dtype=dtype if dtype in ROUNDED_DTYPES else torch.float32,
    )  # fmt: skip
    epilogue, _ = checked_epilogue(op, LAYER, rows, given, (m, n), (), ((n,), (n, 1)))
    if input.dtype is torch.float64 or _differentiated(rows, residual):
        serving(op, input.device, input.dtype)  # raises for a backend that was asked for and is not here
        output = widened_linear(rows, weight, epilogue._replace(residual=residual)).to(dtype)
    else:
        operator = _int8_weight_only_linear.int8_weight_only_linear
        output = served(op, operator, input.dtype, rows, weight, *flat(epilogue), dtype)
    return output.view(size)


def _differentiated(*tensors: Tensor | None) -> bool:
    """Whether a derivative through one of them is wanted, in either direction."""
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
