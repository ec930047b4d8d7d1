"""Rows of bytes, of any strides, made what the INT8 products read fastest, and their sums.

Copied rows are int8 (uint8 moved by 128), dense, and end in zeros at a multiple of 16 bytes or of 4: then a load takes
that many at once, which no row of odd length or of bytes that are strides apart allows.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.types import INTERPRETED, LARGEST_INDEX, as_wide, indices

# Rows and bytes of a tile, for long rows and for short ones.
LONG, SHORT = (16, 256), (256, 16)
INTERPRETED_BYTES = 2**16


@triton.jit
def signed(x):
    """Bytes as a product takes them: uint8 is moved by 128 to int8."""
    if x.dtype == tl.uint8:
        x = (x ^ 0x80).to(tl.int8, bitcast=True)
    return x


@triton.jit
def pack_kernel(
    rows,
    packed,
    sums,
    ROWS,
    K,
    length,
    stride_row,
    stride_k,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """packed[row, k] = rows[row, k], zero from K to `length`; sums[row] the sum of it. Either may be None. `length`
    counts UNITs."""
    K, length, stride_row, stride_k = as_wide((K, length, stride_row, stride_k), WIDE)
    length = length * UNIT
    row = indices(tl.program_id(0), BLOCK_M, WIDE)
    row_exists = row < ROWS
    total = tl.zeros((BLOCK_M, BLOCK_K), tl.int32)
    for step in range(tl.cdiv(length, BLOCK_K)):
        k = indices(step, BLOCK_K, WIDE)[None, :]
        exists = row_exists[:, None] & (k < K)
        at = row[:, None] * stride_row + k * stride_k
        x = tl.where(exists, signed(tl.load(rows + at, mask=exists, other=0)), 0)
        if packed is not None:
            tl.store(packed + (row[:, None] * length + k), x, mask=row_exists[:, None] & (k < length))
        if sums is not None:
            total += x
    if sums is not None:
        tl.store(sums + row, tl.sum(total, 1), mask=row_exists)  # exact: integers


def padded(length: int) -> int:
    """The bytes of a copied row: whole loads of 16, or of 4 where 16 would be more than twice of it."""
    return 16 * math.ceil(length / 16) if length > 8 else 4 * math.ceil(length / 4)


def pack(rows: Tensor, copy: bool, sum_up: bool) -> tuple[Tensor, Tensor | None]:
    """A matrix [ROWS, K] of int8 or uint8 of any strides, dense with `padded(K)` bytes a row if `copy`, and the int32
    sums of its rows, less 128 for each byte of uint8, if `sum_up`."""
    count, k = rows.shape
    length = padded(k) if copy else k
    packed = torch.empty((count, length), dtype=torch.int8, device=rows.device) if copy else None
    sums = torch.empty(count, dtype=torch.int32, device=rows.device) if sum_up else None
    if packed is not None or sums is not None:
        block_m, block_k = LONG if length > SHORT[1] else SHORT
        if INTERPRETED.value:  # a program costs more than its bytes do
            block_m = min(triton.next_power_of_2(count), 256)
            block_k = INTERPRETED_BYTES // block_m
        reach = max(
            count * length, sum((size - 1) * step for size, step in zip(rows.shape, rows.stride(), strict=True))
        )
        unit = math.gcd(length, 16)
        pack_kernel[(math.ceil(count / block_m),)](
            rows, packed, sums, count, k, length // unit, *rows.stride(),
            UNIT=unit, WIDE=reach > LARGEST_INDEX, BLOCK_M=block_m, BLOCK_K=block_k,
        )  # fmt: skip
    return (rows if packed is None else packed), sums
