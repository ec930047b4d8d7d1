"""cnnkernels/int8/epilogue.py in Triton: what becomes of int32 sums before they are stored.

Bits are part of the contract: every operation is rounded by itself. So a kernel that calls `store` is launched with
enable_fp_fusion=False (OPTIONS), and divisions are tl.math.div_rn.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...int8.epilogue import Int8Epilogue
from ..common.activation import activate
from ..common.types import narrow
from .rounding import ROUNDING

# Of every launch: no multiplication is fused with an addition.
OPTIONS = {"enable_fp_fusion": False}
# What is taken from uint8 operands, so that they are int8 to a matrix product, and from their zero points with them.
UNSIGNED = 128


@dataclass(frozen=True)
class Parts:
    """What there is of an epilogue, at compile time. Tensors in a kernel's tuples are told apart from numbers here, as
    older versions of Triton take no None in them.

    Numbers are "none", or a "number" by value, or of a tensor its one "element" or "each" of the rows or columns.
    """

    zero_a: str
    zero_b: str
    scale_a: str = "none"
    scale_b: str = "none"
    bias: bool = False
    residual: str = "none"  # or "floating" or "integer"
    out_scale: str = "none"
    activation: str = "none"
    slope: float = 0.0


@triton.jit
def number(values, index, exists, KIND: tl.constexpr):
    """A number that holds for all, or those that a tensor has at an index."""
    if KIND == "each":
        return tl.load(values + index, mask=exists, other=0)
    elif KIND == "element":
        return tl.load(values)
    else:
        return tl.cast(values, tl.float32)


@triton.jit
def times(x, y):
    """x y modulo 2^32."""
    return tl.mul(x, y, sanitize_overflow=False)


@triton.jit
def minus(x, y):
    """x - y modulo 2^32."""
    return tl.sub(x, y, sanitize_overflow=False)


@triton.jit
def corrected(total, numbers, m, n, m_exists, n_exists, PARTS: tl.constexpr):
    """The sums of (a - zero_a) (b - zero_b) over `count` products, from those of a b: zero_a sum(b) and zero_b sum(a)
    less, and count zero_a zero_b more. On the way there integers may wrap; the result does not."""
    zero_a, zero_b, moved, count, sums_a, sums_b = numbers[:6]
    ZERO_A: tl.constexpr = PARTS.zero_a
    ZERO_B: tl.constexpr = PARTS.zero_b
    if ZERO_A != "none":
        at_rows = number(zero_a, m, m_exists, ZERO_A).to(tl.int32)
        at_rows = minus(at_rows, tl.cast(moved, tl.int32))
        total = minus(total, times(at_rows, tl.load(sums_b + n, mask=n_exists, other=0)))
    if ZERO_B != "none":
        at_columns = number(zero_b, n, n_exists, ZERO_B).to(tl.int32)
        rest = tl.load(sums_a + m, mask=m_exists, other=0)
        if ZERO_A != "none":
            rest = minus(rest, times(at_rows, tl.cast(count, tl.int32)))
        total = minus(total, times(at_columns, rest))
    return total


@triton.jit
def quantized(x, scale, low, high, zero_point, element: tl.constexpr, KIND: tl.constexpr):
    """clamp(rint(x / scale) + zero point), by the rounded inverse that a scale by value is; NaN gives the zero point.
    Bounds are integers, so that what is clamped first rounds to the same."""
    if KIND == "element":
        scale = tl.math.div_rn(1.0, tl.load(scale))
    x = x * scale
    x = tl.where(x < low, low, tl.where(x > high, high, x))
    x = (tl.where(x == x, x, 0.0) + ROUNDING) - ROUNDING
    return (x + zero_point).to(tl.int32).to(element)


@triton.jit
def store(output, at, total, numbers, m, n, m_exists, n_exists, PARTS: tl.constexpr):
    """Stores what a block of sums becomes. m [rows, 1], n [1, columns]: its rows and columns; `at`: where its elements,
    and a residual's, lie."""
    element: tl.constexpr = output.dtype.element_ty
    exists = m_exists & n_exists
    total = corrected(total, numbers, m, n, m_exists, n_exists, PARTS)
    if element == tl.int32:
        tl.store(output + at, total, mask=exists)
    else:
        scale_a, scale_b, bias, residual, r_zero, r_scale, scale, low, high, zero_point = numbers[6:]
        SCALE_A: tl.constexpr = PARTS.scale_a
        SCALE_B: tl.constexpr = PARTS.scale_b
        OUT_SCALE: tl.constexpr = PARTS.out_scale
        ACTIVATION: tl.constexpr = PARTS.activation
        SLOPE: tl.constexpr = PARTS.slope
        x = total.to(tl.float32) * (number(scale_a, m, m_exists, SCALE_A) * number(scale_b, n, n_exists, SCALE_B))
        if PARTS.bias:
            x = x + tl.load(bias + n, mask=n_exists, other=0.0)
        if PARTS.residual != "none":
            r = tl.load(residual + at, mask=exists, other=0).to(tl.float32)
            if PARTS.residual == "integer":
                r = (r - r_zero) * r_scale
            x = x + r
        x = activate(x, SLOPE, ACTIVATION)
        if OUT_SCALE != "none":
            x = quantized(x, scale, low, high, zero_point, element, OUT_SCALE)
        else:
            x = narrow(x, element)
        tl.store(output + at, x, mask=exists)


@triton.jit
def store_tile(
    output, at_rows, total, numbers, m, first, base, columns, m_exists, PIECES: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """Stores what a tile of sums becomes, in PIECES of its columns one after the other, as the registers for all of it
    at once may not be there. Its columns are those of a group that starts at `base` and has `columns`, from `first` on;
    `at_rows`: where its rows lie."""
    if PIECES == 1:
        column = first + tl.arange(0, total.shape[1])[None, :]
        n = base + column
        store(output, at_rows + n, total, numbers, m, n, m_exists, column < columns, PARTS)
    else:
        ROWS: tl.constexpr = total.shape[0]
        HALF: tl.constexpr = total.shape[1] // 2
        left, right = tl.split(tl.permute(tl.reshape(total, (ROWS, 2, HALF)), (0, 2, 1)))
        store_tile(output, at_rows, left, numbers, m, first, base, columns, m_exists, PIECES // 2, PARTS)
        tl.debug_barrier()  # or the compiler loads all of the second half's residual with the first's
        store_tile(output, at_rows, right, numbers, m, first + HALF, base, columns, m_exists, PIECES // 2, PARTS)


def shift_of(operand: Tensor) -> int:
    """What a product takes from each element of an operand, to make int8 of uint8."""
    return UNSIGNED if operand.dtype is torch.uint8 else 0


def has_zero_point(zero_point: float | Tensor, operand: Tensor) -> bool:
    """Has a product, of the operand as it takes it, sums that the zero point corrects?"""
    return isinstance(zero_point, Tensor) or zero_point != shift_of(operand)


def _value(numbers: float | Tensor) -> float | Tensor:
    """As it travels: an integer as a float, or a kernel would be compiled for each value."""
    return numbers if isinstance(numbers, Tensor) else float(numbers)


def _inverse(scale: float) -> float:
    """1 / scale as fp32 computes it: fp64's quotient of fp32 numbers, rounded again, is the correctly rounded one."""
    rounded = ctypes.c_float(scale).value
    return ctypes.c_float(1 / rounded).value if rounded else math.inf


def _kind(numbers: float | Tensor) -> str:
    return "number" if not isinstance(numbers, Tensor) else "element" if numbers.numel() == 1 else "each"


def arguments(
    e: Int8Epilogue, output: Tensor, moved: int, count: int, sums_a: Tensor | None, sums_b: Tensor | None
) -> tuple[tuple[float | Tensor, ...], Parts]:
    """A kernel's `numbers`, 0 for what there is not, and PARTS.

    Args:
        moved: what was taken from each element of a, see `shift_of`.
        count: products of a sum.
        sums_a, sums_b: of the operands as the product takes them; None where no zero point of the other's needs them.
    """
    zero_a = "none" if sums_b is None else _kind(e.zero_point_a)
    zero_b = "none" if sums_a is None else _kind(e.zero_point_b)
    parts = Parts(zero_a, zero_b)
    numbers: list[float | Tensor | None] = [
        _value(e.zero_point_a), _value(e.zero_point_b), float(moved), float(count), sums_a, sums_b
    ]  # fmt: skip
    out_scale: float | Tensor = 0.0
    low = high = 0
    if output.dtype is not torch.int32:
        residual = "none" if e.residual is None else "floating" if e.residual.is_floating_point() else "integer"
        quantized = "none"
        if not output.is_floating_point():
            quantized = _kind(e.out_scale)
            out_scale = e.out_scale if isinstance(e.out_scale, Tensor) else _inverse(e.out_scale)
            limits = torch.iinfo(output.dtype)
            low, high = limits.min - e.out_zero_point, limits.max - e.out_zero_point
        slope = e.negative_slope if e.activation == "leaky_relu" else 0.0
        parts = Parts(
            zero_a, zero_b, _kind(e.scale_a), _kind(e.scale_b), e.bias is not None, residual, quantized, e.activation,
            slope,
        )  # fmt: skip
    numbers += [_value(e.scale_a), _value(e.scale_b), e.bias, e.residual]
    numbers += [float(e.residual_zero_point), float(e.residual_scale), out_scale]
    numbers += [float(low), float(high), float(e.out_zero_point)]
    return tuple(0.0 if value is None else value for value in numbers), parts
