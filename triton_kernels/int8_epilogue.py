"""cnnkernels/int8_epilogue.py in Triton: what becomes of int32 sums before they are stored.

Bits are part of the contract: every operation is rounded by itself. So a kernel that calls `store` is launched with
enable_fp_fusion=False (OPTIONS), and divisions are tl.math.div_rn. What is None, or holds for all, costs nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cnnkernels.int8_epilogue import Int8Epilogue

from .activation import activate
from .common import narrow

# Of every launch: no multiplication is fused with an addition.
OPTIONS = {"enable_fp_fusion": False}
# What uint8 operands are moved by, so that they are int8 to a matrix product, and their zero points with them.
UNSIGNED = 128
# 1.5 2^23: fp32 numbers of this size are integers, so that adding it rounds a number below 2^22 half to even.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def numbers(values, index, exists):
    """A number that holds for all, or those that a tensor has at an index. `values`: the number and None, or the tensor
    and what one index and the next are apart in it, 0 or 1."""
    if values[1] is None:
        return tl.cast(values[0], tl.float32)
    else:
        return tl.load(values[0] + index * values[1], mask=exists, other=0)


@triton.jit
def times(x, y):
    """x y modulo 2^32."""
    return tl.mul(x, y, sanitize_overflow=False)


@triton.jit
def minus(x, y):
    """x - y modulo 2^32."""
    return tl.sub(x, y, sanitize_overflow=False)


@triton.jit
def corrected(total, zero_points, m, n, m_exists, n_exists):
    """The sums of (a - zero_a) (b - zero_b) over `count` products, from those of a b: zero_a sum(b) and zero_b sum(a)
    less, and count zero_a zero_b more. On the way there integers may wrap; the result does not."""
    zero_a, zero_b, shift, count, sums_a, sums_b = zero_points
    if zero_a is not None:
        at_rows = minus(numbers(zero_a, m, m_exists).to(tl.int32), tl.cast(shift, tl.int32))
        total = minus(total, times(at_rows, tl.load(sums_b + n, mask=n_exists, other=0)))
    if zero_b is not None:
        at_columns = numbers(zero_b, n, n_exists).to(tl.int32)
        rest = tl.load(sums_a + m, mask=m_exists, other=0)
        if zero_a is not None:
            rest = minus(rest, times(at_rows, tl.cast(count, tl.int32)))
        total = minus(total, times(at_columns, rest))
    return total


@triton.jit
def quantized(x, quantization, element: tl.constexpr):
    """clamp(rint(x / scale) + zero point) by the scale's rounded inverse; NaN gives the zero point. Bounds are
    integers, so that what is clamped first rounds to the same."""
    scale, inverse, low, high, zero_point = quantization
    if scale is not None:
        inverse = tl.math.div_rn(1.0, tl.load(scale))
    x = x * inverse
    x = tl.where(x < low, low, tl.where(x > high, high, x))
    x = (tl.where(x == x, x, 0.0) + ROUNDING) - ROUNDING
    return (x + zero_point).to(tl.int32).to(element)


@triton.jit
def store(
    output, at, total, zero_points, epilogue, m, n, m_exists, n_exists, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr
):  # fmt: skip
    """Stores what a block of sums becomes. m [rows, 1], n [1, columns]: its rows and columns; `at`: where its elements,
    and a residual's, lie."""
    element: tl.constexpr = output.dtype.element_ty
    exists = m_exists & n_exists
    total = corrected(total, zero_points, m, n, m_exists, n_exists)
    if element == tl.int32:
        tl.store(output + at, total, mask=exists)
    else:
        scale_a, scale_b, bias, residual, shift, quantization = epilogue
        x = total.to(tl.float32) * (numbers(scale_a, m, m_exists) * numbers(scale_b, n, n_exists))
        if bias is not None:
            x = x + tl.load(bias + n, mask=n_exists, other=0.0)
        if residual is not None:
            r = tl.load(residual + at, mask=exists, other=0).to(tl.float32)
            if shift is not None:
                r = (r - shift[0]) * shift[1]
            x = x + r
        x = activate(x, SLOPE, ACTIVATION)
        if quantization is not None:
            tl.store(output + at, quantized(x, quantization, element), mask=exists)
        else:
            tl.store(output + at, narrow(x, element), mask=exists)


@triton.jit
def store_tile(
    output,
    at_rows,
    total,
    zero_points,
    epilogue,
    m,
    first,
    base,
    columns,
    m_exists,
    PIECES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr,
):
    """Stores what a tile of sums becomes, in PIECES of its columns one after the other, as the registers for all of it
    at once may not be there. Its columns are those of a group that starts at `base` and has `columns`, from `first` on;
    `at_rows`: where its rows lie."""
    if PIECES == 1:
        column = first + tl.arange(0, total.shape[1])[None, :]
        n = base + column
        store(
            output, at_rows + n, total, zero_points, epilogue, m, n, m_exists, column < columns, ACTIVATION, SLOPE
        )  # fmt: skip
    else:
        ROWS: tl.constexpr = total.shape[0]
        HALF: tl.constexpr = total.shape[1] // 2
        left, right = tl.split(tl.permute(tl.reshape(total, (ROWS, 2, HALF)), (0, 2, 1)))
        store_tile(
            output, at_rows, left, zero_points, epilogue, m, first, base, columns, m_exists,
            PIECES // 2, ACTIVATION, SLOPE,
        )  # fmt: skip
        tl.debug_barrier()  # or the compiler loads all of the second half's residual with the first's
        store_tile(
            output, at_rows, right, zero_points, epilogue, m, first + HALF, base, columns, m_exists,
            PIECES // 2, ACTIVATION, SLOPE,
        )  # fmt: skip


def fp32(number: float) -> float:
    """A number rounded to fp32, to nearest even; what is too large becomes infinite."""
    try:
        return struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _numbers(values: float | Tensor) -> tuple[float | Tensor, int | None]:
    """As `numbers` takes them. Integers travel as floats, or each value would be compiled for."""
    if isinstance(values, Tensor):
        return values, int(values.numel() > 1)
    return float(values), None


def arguments(e: Int8Epilogue, output: Tensor) -> tuple[Any, ...] | None:
    """A kernel's `epilogue`; None where the output is the sums."""
    if output.dtype is torch.int32:
        return None
    shift = quantization = None
    if e.residual is not None and not e.residual.is_floating_point():
        shift = (float(e.residual_zero_point), float(e.residual_scale))
    if not output.is_floating_point():
        limits, zero_point = torch.iinfo(output.dtype), e.out_zero_point
        # A quotient of fp32 numbers that is rounded to fp64 and then to fp32 is the correctly rounded one.
        scale, inverse = (e.out_scale, 1.0) if isinstance(e.out_scale, Tensor) else (None, fp32(1 / fp32(e.out_scale)))
        bounds = (float(limits.min - zero_point), float(limits.max - zero_point))
        quantization = (scale, inverse, *bounds, float(zero_point))
    return _numbers(e.scale_a), _numbers(e.scale_b), e.bias, e.residual, shift, quantization


def activation_constants(e: Int8Epilogue, output: Tensor) -> dict[str, Any]:
    """The compile-time arguments of `store`."""
    activation = "none" if output.dtype is torch.int32 else e.activation
    return {"ACTIVATION": activation, "SLOPE": e.negative_slope if activation == "leaky_relu" else 0.0}


def has_zero_point(zero_point: float | Tensor, operand: Tensor) -> bool:
    """Do a product's sums differ from those of the zero point's distances? An operand of uint8 is moved to int8."""
    return isinstance(zero_point, Tensor) or zero_point != shift_of(operand)


def shift_of(operand: Tensor) -> int:
    return UNSIGNED if operand.dtype is torch.uint8 else 0


def zero_points(
    e: Int8Epilogue, a: Tensor, count: int, sums_a: Tensor | None, sums_b: Tensor | None
) -> tuple[Any, ...]:
    """A kernel's `zero_points`, for sums of `count` products. sums_a, sums_b: of the operands as the product takes
    them; None where they are not needed."""
    zero_a = _numbers(e.zero_point_a) if sums_b is not None else None
    zero_b = _numbers(e.zero_point_b) if sums_a is not None else None
    return zero_a, zero_b, float(shift_of(a)), float(count), sums_a, sums_b
