"""Products of INT8 matrices, and the linear layer that is one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..dtypes import INT8_DTYPES, ROUNDED_DTYPES
from ..ops import int8_gemm as _int8_gemm
from ..ops.int8_epilogue import flat
from .arguments import check_device, check_is_tensor
from .int8_arguments import (
    LAYER,
    Given,
    Names,
    check_operand,
    check_reduction,
    checked_epilogue,
    checked_input,
    refuse_gradients,
)
from .quantize import quantize_per_tensor, quantize_per_token
from .served import served


def int8_gemm(
    a: Tensor,
    b: Tensor,
    *,
    scale_a: float | Tensor | None = None,
    scale_b: float | Tensor | None = None,
    zero_point_a: int | Tensor | None = None,
    zero_point_b: int | Tensor | None = None,
    bias: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
    residual: Tensor | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int | None = None,
    out_dtype: torch.dtype | None = None,
    out_scale: float | Tensor | None = None,
    out_zero_point: int | None = None,
) -> Tensor:
    """The product of two INT8 matrices of any size and strides, with what follows it, in one kernel.

        sum[m, n] = sum over k of (a[m, k] - zero_point_a[m]) (b[k, n] - zero_point_b[n])      exact, in int32
        x = float(sum) (scale_a[m] scale_b[n]);   x = x + bias[n];   x = x + residual[m, n];   x = activation(x)

    in fp32, each operation rounded by itself, so that every backend gives the same bits (silu and gelu excepted, in
    their last ones). The output is the sum itself (int32), x rounded once to nearest even (floating), or
    clamp(rint(x (1 / out_scale)) + out_zero_point) (int8, uint8), half to even, where NaN becomes out_zero_point.

    Args:
        a: [M, K]; int8 or uint8.
        b: [K, N]; int8. The view `weight.t()` of a contiguous [N, K] weight is the fast one.
        scale_a, scale_b: positive numbers, or float32 tensors: one element, or one for each row of a ([M] or [M, 1]) or
            column of b ([N] or [1, N]).
        zero_point_a, zero_point_b: the integers that stand for 0, of a's or b's range: numbers, or int32 tensors of
            the same sizes.
        bias: float32 [N].
        activation, negative_slope: one of `cnnkernels.activation.ACTIVATIONS`, and leaky_relu's factor below zero.
        residual: [M, N]; float32, float16 or bfloat16, or int8 or uint8, which stands for
            float(residual - residual_zero_point) residual_scale.
        out_dtype: int32, float32, float16, bfloat16, int8 or uint8. None is int8 where out_scale is given, int32 where
            nothing follows the sums, else float32.
        out_scale, out_zero_point: of an int8 or uint8 output; out_scale is a number or a tensor of one element.

    Returns:
        [M, N], contiguous. M, N and K may be 0; no products sum to 0.

    Raises:
        TypeError, RuntimeError: an argument of another type; a tensor of another dtype, size or device; one that
            requires a gradient, as there is none.
        ValueError: a number out of range: a scale that is not positive and finite, a zero point that is none of the
            type's values (tensors on a GPU are not looked at), K above 131071 (65793 with uint8 or a zero point on one
            side, 33025 on both), as the sums could leave int32; numbers that do not go with the output's dtype.
        NotImplementedError, ImportError, RuntimeError: kernels asked for by name that can not serve the call.

    Example:
        >>> a, b = torch.full((2, 4), 3, dtype=torch.int8), torch.full((4, 2), 5, dtype=torch.int8)
        >>> cnnkernels.functional.int8_gemm(a, b)
        tensor([[60, 60],
                [60, 60]], dtype=torch.int32)
    """
    tensors = (a, b, scale_a, scale_b, zero_point_a, zero_point_b, bias, residual, out_scale)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            int8_gemm, tensors, a, b, scale_a=scale_a, scale_b=scale_b, zero_point_a=zero_point_a,
            zero_point_b=zero_point_b, bias=bias, activation=activation, negative_slope=negative_slope,
            residual=residual, residual_scale=residual_scale, residual_zero_point=residual_zero_point,
            out_dtype=out_dtype, out_scale=out_scale, out_zero_point=out_zero_point,
        )  # fmt: skip
    check_operand("int8_gemm", "a", a, INT8_DTYPES, 2)
    given = Given(
        scale_a=scale_a, scale_b=scale_b, zero_point_a=zero_point_a, zero_point_b=zero_point_b, bias=bias,
        residual=residual, residual_scale=residual_scale, residual_zero_point=residual_zero_point,
        activation=activation, negative_slope=negative_slope, out_dtype=out_dtype, out_scale=out_scale,
        out_zero_point=out_zero_point,
    )  # fmt: skip
    m, n = a.shape[0], b.shape[1] if isinstance(b, Tensor) and b.dim() == 2 else 0
    return _multiply("int8_gemm", Names(), a, b, given, ((m,), (m, 1)), ((n,), (1, n)))


def _multiply(
    op: str,
    names: Names,
    a: Tensor,
    b: Any,
    given: Given,
    rows: tuple[tuple[int, ...], ...],
    columns: tuple[tuple[int, ...], ...],
    default: torch.dtype | None = None,
) -> Tensor:
    check_operand(op, names.b, b, (torch.int8,), 2)
    if a.shape[1] != b.shape[0]:
        raise RuntimeError(
            f"{op}: {names.a} and {names.b} cannot be multiplied ({a.shape[0]}x{a.shape[1]} and "
            f"{b.shape[0]}x{b.shape[1]})"
        )
    check_device(names.b, b, names.a, a.device)
    check_reduction(op, names, a, a.shape[1], given)
    size = a.shape[0], b.shape[1]
    epilogue, out_dtype = checked_epilogue(op, names, a, given, size, rows, columns, default)
    return served("int8_gemm", _int8_gemm.int8_gemm, a.dtype, a, b, *flat(epilogue), out_dtype)  # type: ignore[no-any-return]


def int_mm(self: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The int32 product of two int8 matrices, as `torch._int_mm`, of any size and strides.

    Args:
        self, mat2: [M, K] and [K, N]; int8.
        out: int32 [M, N] of any strides, which takes a copy of the product.

    Returns:
        int32 [M, N], contiguous, or out.

    Raises:
        TypeError, RuntimeError, ValueError: as `int8_gemm`.

    Example:
        >>> a, b = torch.full((2, 4), 3, dtype=torch.int8), torch.full((4, 2), 5, dtype=torch.int8)
        >>> cnnkernels.functional.int_mm(a, b).dtype
        torch.int32
    """
    if has_torch_function_variadic(self, mat2, out):
        return handle_torch_function(int_mm, (self, mat2, out), self, mat2, out=out)
    check_operand("int_mm", "self", self, (torch.int8,), 2)
    if out is not None:
        check_operand("int_mm", "out", out, (torch.int32,), 2)
        check_device("out", out, "self", self.device)
    product = _multiply("int_mm", Names("self", "mat2"), self, mat2, Given(out_dtype=torch.int32), ((),), ((),))
    if out is None:
        return product
    if out.shape != product.shape:
        raise RuntimeError(f"int_mm: expected out to be of size {list(product.shape)}, but got {list(out.shape)}")
    return out.copy_(product)


def int8_linear(
    input: Tensor,
    weight: Tensor,
    input_scale: float | Tensor | None,
    weight_scale: float | Tensor | None,
    bias: Tensor | None = None,
    *,
    input_zero_point: int | Tensor | None = None,
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
    """A linear layer of INT8: `int8_gemm(input, weight.t(), ...)` with its epilogue.

    Args:
        input: [..., K] or [K]; int8 or uint8, or float64, float32, float16 or bfloat16, which is quantized first: with
            input_scale and input_zero_point, or, where input_scale is None, each row by its own largest magnitude
            (dynamic quantization, as `quantize_per_token`).
        weight: [N, K]; int8.
        input_scale: a positive number or a float32 tensor: one element, or, for integers, one a row ([...] or
            [..., 1]). None is 1 for integers.
        weight_scale: a number or a float32 tensor: one element, or one for each output ([N] or [N, 1]). None is 1.
        bias: float32 [N].
        input_zero_point: the integer that stands for 0, a number or, for integers, an int32 tensor of input_scale's
            sizes.
        weight_sum: int32 [N], weight's sums over K, where they are known: an input with a zero point needs them. They
            are not checked.
        activation, negative_slope, residual, residual_scale, residual_zero_point, out_scale, out_zero_point: as
            `int8_gemm`'s; residual is of the output's size.
        out_dtype: as `int8_gemm`'s, but None is a floating input's own dtype (float32 for float64) where out_scale is
            None.

    Returns:
        [..., N], contiguous.

    Raises:
        TypeError, RuntimeError, ValueError, NotImplementedError, ImportError: as `int8_gemm`.

    Example:
        >>> rows, weight = torch.full((1, 4), 3, dtype=torch.int8), torch.full((2, 4), 5, dtype=torch.int8)
        >>> cnnkernels.functional.int8_linear(rows, weight, input_scale=0.1, weight_scale=0.5)
        tensor([[3., 3.]])
    """
    op = "int8_linear"
    tensors = (input, weight, input_scale, weight_scale, bias, input_zero_point, residual, out_scale, weight_sum)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            int8_linear, tensors, input, weight, input_scale, weight_scale, bias, input_zero_point=input_zero_point,
            activation=activation, negative_slope=negative_slope, residual=residual, residual_scale=residual_scale,
            residual_zero_point=residual_zero_point, out_dtype=out_dtype, out_scale=out_scale,
            out_zero_point=out_zero_point, weight_sum=weight_sum,
        )  # fmt: skip
    check_is_tensor(op, "input", input)
    check_operand(op, "weight", weight, (torch.int8,), 2)
    if input.dim() == 0 or input.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"{op}: expected input to be of size [..., {weight.shape[1]}] for weight of size {list(weight.shape)}, but "
            f"got {list(input.shape)}"
        )
    refuse_gradients(op, input=input)
    default = None
    if input.is_floating_point():
        default = input.dtype if input.dtype in ROUNDED_DTYPES else torch.float32
        input, input_scale = _quantized(op, input, input_scale, input_zero_point)
    check_operand(op, "input", input, INT8_DTYPES, input.dim())
    leading, (n, k) = input.shape[:-1], weight.shape
    size, m = (*leading, n), math.prod(leading)
    if isinstance(residual, Tensor):
        if residual.shape != size:
            raise RuntimeError(f"{op}: expected residual to be of size {list(size)}, but got {list(residual.shape)}")
        residual = residual.reshape(m, n)
    given = Given(
        scale_a=_by_row(input_scale, leading), scale_b=weight_scale, zero_point_a=_by_row(input_zero_point, leading),
        bias=bias, residual=residual, residual_scale=residual_scale, residual_zero_point=residual_zero_point,
        activation=activation, negative_slope=negative_slope, out_dtype=out_dtype, out_scale=out_scale,
        out_zero_point=out_zero_point, sums_b=weight_sum,
    )  # fmt: skip
    rows = input.reshape(m, k)
    output = _multiply(op, LAYER, rows, weight.t(), given, ((m,), (*leading, 1)), ((n,), (n, 1)), default)
    return output.view(size)


def _by_row(numbers: Any, leading: tuple[int, ...]) -> Any:
    """One number for each row, as a vector; anything else stays what it is, for the checks."""
    if isinstance(numbers, Tensor) and numbers.shape in (leading, (*leading, 1)):
        return numbers.reshape(-1)
    return numbers


def _quantized(op: str, input: Tensor, scale: Any, zero_point: Any) -> tuple[Tensor, Any]:
    """A floating input as integers, and their scales."""
    if scale is not None:
        return quantize_per_tensor(input, *checked_input(op, input, scale, zero_point))
    if isinstance(zero_point, Tensor) or zero_point:
        raise ValueError(f"{op}: input_zero_point={zero_point} needs input_scale: dynamic quantization is symmetric")
    return quantize_per_token(input)
