"""The tile of an INT8 product: which of them a program takes, how it is loaded, and in how many pieces it is stored."""

import math

import triton
import triton.language as tl

# Rows of tiles that run together.
BAND = 8
# Sums of a thread that the epilogue takes at once, as ptxas was seen to compile it without spilling.
MOST_FINISHED_SUMS = 32


def pieces(block_m: int, block_n: int, warps: int) -> int:
    """Parts of a tile that the epilogue takes one after the other (int8/epilogue.py, store_tile)."""
    return math.ceil(block_m * block_n / (32 * warps * MOST_FINISHED_SUMS))


@triton.jit
def tile_of(tiles_m, tiles_n, BAND: tl.constexpr):
    """A program's tile. Programs that run together take BAND rows of tiles: they share operands in the cache."""
    pid = tl.program_id(0)
    first = pid // (BAND * tiles_n) * BAND
    rows = tl.minimum(tiles_m - first, BAND)
    place = pid % (BAND * tiles_n)
    return first + place % rows, place // rows


@triton.jit
def load_block(pointers, exists, MASKED: tl.constexpr):
    if MASKED:
        return tl.load(pointers, mask=exists, other=0)
    else:
        return tl.load(pointers)
