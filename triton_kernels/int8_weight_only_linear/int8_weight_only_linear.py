"""int8_weight_only_linear in Triton: floating rows by an int8 weight that is widened in registers, one element after
the other, on its way to tensor cores (fp32: to exact multiply-adds). int8/epilogue.py makes the output of the sums.

Of up to 16 rows the tile, and with it the order of the sums, is the same for any number of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...int8.epilogue import Int8Epilogue
from ..common.target import on
from ..common.types import INTERPRETED, LARGEST_INDEX, as_wide, indices
from ..int8.epilogue import OPTIONS, arguments, store_tile
from ..int8.tile import BAND, load_block, pieces, tile_of

# The narrowest loads for which the largest tile has registers.
NARROW = 8


class Tile(NamedTuple):
    """Rows, columns and products of a step, and how a program runs it."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


# By the most rows each is for. Few rows only read the weight: a step's 256 bytes of a column, 4 or 5 of them under way.
TILES = {
    16: Tile(16, 32, 256, 4, 4),
    64: Tile(64, 64, 64, 4, 4),
    math.inf: Tile(128, 128, 64, 8, 3),
}
# fp32 is multiplied outside of tensor cores; of 64 rows Triton 3.7 gives it to sm_100's, as tf32, asked for "ieee".
EXACT_TILES = {16: Tile(16, 32, 64, 4, 3), math.inf: Tile(32, 64, 32, 4, 3)}
INTERPRETED_TILES = {16: Tile(16, 128, 256, 4, 1), math.inf: Tile(64, 128, 256, 4, 1)}


@triton.jit
def floating(x):
    """fp32 numbers; bfloat16's by their bits, as Triton's interpreter loses its subnormals."""
    if x.dtype == tl.bfloat16:
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def widened(w, element: tl.constexpr):
    """int8 as floating numbers. As unsigned ones, 128 more, they are the last bits of fp16 from 1024 on, which takes
    less than a conversion; of bfloat16 the compiler knows as much itself."""
    if element == tl.float16:
        moved = (w.to(tl.uint8, bitcast=True) ^ 0x80).to(tl.uint16) | 0x6400
        return moved.to(tl.float16, bitcast=True) - 1152.0
    else:
        return w.to(element)


@triton.jit
def linear_kernel(
    input,
    weight,
    numbers,
    output,
    M,
    N,
    K,
    stride_m,
    stride_k,
    stride_n,
    UNIT_M: tl.constexpr,
    UNIT_N: tl.constexpr,
    UNIT_K: tl.constexpr,
    UNIT_W: tl.constexpr,
    MASKED: tl.constexpr,
    PIECES: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
):
    """One tile of output [M, N]. N, K, stride_m and stride_n count their units. MASKED: K is no multiple of BLOCK_K."""
    M, N, K = as_wide((M, N, K), WIDE)
    stride_m, stride_k, stride_n = as_wide((stride_m, stride_k, stride_n), WIDE)
    N, K, stride_m, stride_n = N * UNIT_N, K * UNIT_K, stride_m * UNIT_M, stride_n * UNIT_W
    tile_m, tile_n = tile_of(tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N), BAND)
    m = indices(tile_m, BLOCK_M, WIDE)[:, None]
    n = indices(tile_n, BLOCK_N, WIDE)[None, :]
    # Rows and columns past the last are the last again: they are not stored.
    at_rows = input + tl.minimum(m, M - 1) * stride_m
    at_columns = weight + tl.minimum(n, N - 1) * stride_n
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(0, tl.cdiv(K, BLOCK_K)):
        k = indices(step, BLOCK_K, WIDE)
        x = load_block(at_rows + k[None, :] * stride_k, k[None, :] < K, MASKED)
        w = load_block(at_columns + k[:, None], k[:, None] < K, MASKED)
        if INTERPRETED:
            x = floating(x)
        total = tl.dot(x, widened(w, x.dtype), total, input_precision="ieee")
    store_tile(output, m * N, total, numbers, m, tile_n * BLOCK_N, 0, N, m < M, PIECES, PARTS)


def tile_for(m: int, dtype: torch.dtype, width: int) -> Tile:
    """`width`: neighbours that one load takes. What is loaded one by one has no registers for the largest tile."""
    tiles = INTERPRETED_TILES if INTERPRETED.value else EXACT_TILES if dtype is torch.float32 else TILES
    rows = m if width >= NARROW else min(m, 64)
    return next(tile for most, tile in tiles.items() if rows <= most)


def int8_weight_only_linear(input: Tensor, weight: Tensor, output: Tensor, epilogue: Int8Epilogue) -> None:
    """Writes output [M, N], row-major; input [M, K] has any strides, weight [N, K] rows of consecutive bytes."""
    (m, k), n = input.shape, weight.shape[0]
    stride_m = input.stride(0) if m > 1 else 0
    stride_k = input.stride(1) if k > 1 else 1
    stride_n = weight.stride(0) if n > 1 else 0
    reach = max((m - 1) * stride_m + (k - 1) * stride_k, (n - 1) * stride_n + k, m * n)
    numbers, parts = arguments(epilogue, output, 0, k, None, None)
    unit_m, unit_n, unit_k, unit_w = (math.gcd(size, 16) for size in (stride_m, n, k, stride_n))
    c = tile_for(m, input.dtype, math.gcd(unit_m, unit_k, unit_w) if stride_k == 1 else 1)
    tiles = math.ceil(m / c.block_m) * math.ceil(n / c.block_n)
    with on(input):
        linear_kernel[(tiles,)](
            input, weight, numbers, output, m, n // unit_n, k // unit_k,
            stride_m // unit_m, stride_k, stride_n // unit_w,
            UNIT_M=unit_m, UNIT_N=unit_n, UNIT_K=unit_k, UNIT_W=unit_w, MASKED=k % c.block_k != 0,
            PIECES=pieces(c.block_m, c.block_n, c.warps),
            WIDE=reach > LARGEST_INDEX, PARTS=parts, BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, BAND=BAND,
            num_warps=c.warps, num_stages=c.stages, **OPTIONS,
        )  # fmt: skip
