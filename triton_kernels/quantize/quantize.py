"""quantize and dequantize in Triton. The semantics are csrc/quantize's, and so are the bits.

    q = clamp(rint(x (1 / scale)) + zero_point)      x = (q - zero_point) scale

A tensor is [outer, groups, inner] in memory, with a scale for each group. Programs take blocks of elements in memory's
order. Where groups are long runs of memory a block is within one of them, else it looks up each element's group.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.target import MOST_REGISTERS, on
from ..common.types import INTERPRETED, LARGEST_INDEX, narrow
from ..int8.rounding import quantized

# Elements of a program; in Triton's interpreter a program costs more than its elements do.
BLOCK = 16384 if INTERPRETED.value else 4096
LONG_RUN = 1024  # from here on blocks stay within a group
LONGEST_ROW = 16384  # that a program keeps in registers

SMALLEST_SCALE, LARGEST_SCALE = tl.constexpr(2.0**-126), tl.constexpr(2.0**126)  # and inverses: normal numbers


@triton.jit
def value_of(x):
    """The fp32 value. bfloat16 by its bits: Triton's interpreter loses its subnormals."""
    if x.dtype == tl.bfloat16:
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def magnitude(x):
    """A NaN does not count."""
    return tl.where(x == x, tl.abs(x), 0.0)


@triton.jit
def dynamic_scale(largest):
    scale = tl.math.div_rn(largest, tl.full(largest.shape, 127.0, tl.float32))
    return tl.where(largest == 0, 1.0, tl.minimum(tl.maximum(scale, SMALLEST_SCALE), LARGEST_SCALE))


@triton.jit
def inverse_of(scale):
    return tl.math.div_rn(tl.full(scale.shape, 1.0, tl.float32), scale)


@triton.jit
def program(WIDE: tl.constexpr):
    pid = tl.program_id(0)
    if WIDE:
        pid = pid.to(tl.int64)
    return pid


@triton.jit
def elements(count, groups, inner, pieces, RUNS: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr):
    """This program's elements, where to stop, and their groups: one for all, or each its own."""
    pid = program(WIDE)
    if RUNS:
        segment = pid // pieces
        begin = segment * inner
        at = begin + (pid % pieces) * SIZE + tl.arange(0, SIZE)
        return at, begin + inner, tl.zeros([1], tl.int32) + segment % groups
    else:
        at = pid * SIZE + tl.arange(0, SIZE)
        return at, count, (at // inner) % groups


@triton.jit
def quantize_kernel(
    input,
    output,
    scale,
    zero_point,
    count,
    groups,
    inner,
    pieces,
    LEAST: tl.constexpr,
    SCALES: tl.constexpr,
    ZERO_POINTS: tl.constexpr,
    RUNS: tl.constexpr,
    WIDE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`scale` and `zero_point`: pointers to one for each group, or the inverse of the scale and a number."""
    at, end, group = elements(count, groups, inner, pieces, RUNS, WIDE, SIZE)
    inverse = inverse_of(tl.load(scale + group)) if SCALES else scale
    shift = tl.load(zero_point + group) if ZERO_POINTS else tl.zeros([1], tl.int32) + zero_point
    x = value_of(tl.load(input + at, mask=at < end, other=0))
    tl.store(output + at, quantized(x, inverse, shift, LEAST).to(output.dtype.element_ty), mask=at < end)


@triton.jit
def dequantize_kernel(
    input,
    output,
    scale,
    zero_point,
    count,
    groups,
    inner,
    pieces,
    SCALES: tl.constexpr,
    ZERO_POINTS: tl.constexpr,
    RUNS: tl.constexpr,
    WIDE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`scale` and `zero_point`: pointers to one for each group, or numbers."""
    at, end, group = elements(count, groups, inner, pieces, RUNS, WIDE, SIZE)
    step = tl.load(scale + group) if SCALES else scale
    shift = tl.load(zero_point + group) if ZERO_POINTS else tl.zeros([1], tl.int32) + zero_point
    q = tl.load(input + at, mask=at < end, other=0).to(tl.int32)
    x = (q - shift).to(tl.float32) * step
    tl.store(output + at, narrow(x, output.dtype.element_ty), mask=at < end)


@triton.jit
def quantize_rows_kernel(
    input, output, scale, rows, length, WIDE: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr
):
    """Whole rows, read once."""
    row = program(WIDE) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, SIZE)[None, :]
    at = row * length + column
    exists = (row < rows) & (column < length)
    x = value_of(tl.load(input + at, mask=exists, other=0))
    step = dynamic_scale(tl.max(magnitude(x), axis=1))[:, None]
    tl.store(output + at, quantized(x, inverse_of(step), tl.zeros([1, 1], tl.int32), -128).to(tl.int8), mask=exists)
    tl.store(scale + row, step, mask=row < rows)


@triton.jit
def absmax_runs_kernel(
    input, maxima, count, groups, inner, pieces, RUNS: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr
):
    """The bits of magnitudes order like the magnitudes, and a maximum is the same in any order."""
    at, end, group = elements(count, groups, inner, pieces, RUNS, WIDE, SIZE)
    x = value_of(tl.load(input + at, mask=at < end, other=0))
    largest = tl.max(magnitude(x), axis=0)
    tl.atomic_max(maxima + group, tl.zeros([1], tl.int32) + largest.to(tl.int32, bitcast=True))


@triton.jit
def absmax_columns_kernel(
    input,
    maxima,
    outer,
    columns,
    inner,
    pieces,
    WIDE: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Columns of [outer, groups * inner] over STEPS times ROWS rows."""
    pid = program(WIDE)
    column = (pid // pieces) * COLUMNS + tl.arange(0, COLUMNS)
    row = (pid % pieces) * (STEPS * ROWS) + tl.arange(0, ROWS)[:, None]
    largest = tl.zeros([ROWS, COLUMNS], tl.float32)
    for _ in range(STEPS):
        exists = (row < outer) & (column < columns)[None, :]
        x = value_of(tl.load(input + row * columns + column[None, :], mask=exists, other=0))
        largest = tl.maximum(largest, magnitude(x))
        row += ROWS
    bits = tl.max(largest, axis=0).to(tl.int32, bitcast=True)
    tl.atomic_max(maxima + column // inner, bits, mask=column < columns)


@triton.jit
def scales_kernel(maxima, scale, groups, WIDE: tl.constexpr, SIZE: tl.constexpr):
    group = program(WIDE) * SIZE + tl.arange(0, SIZE)
    largest = tl.load(maxima + group, mask=group < groups, other=0).to(tl.float32, bitcast=True)
    tl.store(scale + group, dynamic_scale(largest), mask=group < groups)


def _elementwise(tensor: Tensor) -> tuple[int, tuple[int, ...], dict[str, bool | int]]:
    """Programs, count, groups, inner, pieces and constants of a kernel over the elements of [outer, groups, inner]."""
    _, groups, inner = tensor.shape
    count = tensor.numel()
    if groups == 1:
        inner = count
    runs = groups == 1 or inner >= LONG_RUN
    pieces = triton.cdiv(inner, BLOCK)
    programs = count // inner * pieces if runs else triton.cdiv(count, BLOCK)
    wide = count > LARGEST_INDEX
    constants = {"RUNS": runs, "WIDE": wide, "SIZE": BLOCK, "maxnreg": MOST_REGISTERS}
    return programs, (count, groups, inner, pieces), constants


def quantize(
    input: Tensor, output: Tensor, scale: float | Tensor, zero_point: int | Tensor, dynamic: bool = False
) -> None:
    """Writes the integers of [outer, groups, inner]; dynamic, the scales [groups] as well."""
    if dynamic:
        if not isinstance(scale, Tensor):
            raise TypeError(f"quantize: dynamic scales are written to a tensor, but got scale={scale!r}")
        if _quantize_rows(input, output, scale):
            return
        _find_scales(input, scale)
    programs, sizes, constants = _elementwise(input)
    scales, zero_points = isinstance(scale, Tensor), isinstance(zero_point, Tensor)
    if not isinstance(scale, Tensor):
        with np.errstate(over="ignore", divide="ignore"):
            scale = float(np.float32(1) / np.float32(scale))
    with on(input):
        quantize_kernel[(programs,)](
            input, output, scale, zero_point, *sizes, LEAST=torch.iinfo(output.dtype).min,
            SCALES=scales, ZERO_POINTS=zero_points, num_warps=4, enable_fp_fusion=False, **constants,
        )  # fmt: skip


def _quantize_rows(input: Tensor, output: Tensor, scale: Tensor) -> bool:
    """In one pass, where groups are rows short enough."""
    outer, rows, length = input.shape
    if rows == 1:
        outer, length = 1, outer * length
    if outer > 1 or length > LONGEST_ROW:
        return False
    size = triton.next_power_of_2(length)
    each = max(1, min(BLOCK // size, triton.next_power_of_2(rows)))
    warps = max(1, min(16, size * each // 1024))
    with on(input):
        quantize_rows_kernel[(triton.cdiv(rows, each),)](
            input, output, scale, rows, length, WIDE=input.numel() > LARGEST_INDEX, ROWS=each, SIZE=size,
            num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip
    return True


def _find_scales(input: Tensor, scale: Tensor) -> None:
    programs, sizes, constants = _elementwise(input)
    count, groups, inner, _ = sizes
    maxima = torch.zeros(groups, dtype=torch.int32, device=input.device)
    with on(input):
        if constants["RUNS"]:
            absmax_runs_kernel[(programs,)](input, maxima, *sizes, num_warps=4, **constants)
        else:
            outer, columns = count // (groups * inner), groups * inner
            wide = min(128, triton.next_power_of_2(columns))
            rows, steps = BLOCK // wide, 8
            pieces = triton.cdiv(outer, rows * steps)
            absmax_columns_kernel[(pieces * triton.cdiv(columns, wide),)](
                input, maxima, outer, columns, inner, pieces, WIDE=constants["WIDE"], STEPS=steps, ROWS=rows,
                COLUMNS=wide, num_warps=4,
            )  # fmt: skip
        scales_kernel[(triton.cdiv(groups, 1024),)](
            maxima, scale, groups, WIDE=constants["WIDE"], SIZE=1024, num_warps=4, enable_fp_fusion=False
        )


def dequantize(input: Tensor, output: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> None:
    """Writes the numbers that integers [outer, groups, inner] stand for."""
    programs, sizes, constants = _elementwise(input)
    scales, zero_points = isinstance(scale, Tensor), isinstance(zero_point, Tensor)
    if not isinstance(scale, Tensor):
        scale = float(np.float32(scale))
    with on(input):
        dequantize_kernel[(programs,)](
            input, output, scale, zero_point, *sizes, SCALES=scales, ZERO_POINTS=zero_points, num_warps=4,
            **constants,
        )  # fmt: skip
