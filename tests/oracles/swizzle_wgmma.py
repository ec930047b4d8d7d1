"""TMA's tiles, the swizzle of shared memory, wgmma's descriptors and the fragments of tensor cores, in numpy.

Shared memory is an array of bytes that begins at address 0. The swizzle permutes the 16-byte chunks within rows of
``span`` bytes (128, 64, 32; 16 means none): eight rows that lie below each other then fall into different banks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

SPANS = {0: 16, 1: 32, 2: 64, 3: 128}  # csrc/ptx/tensor_map.h's Swizzle -> bytes


def swizzled(address: int, span: int) -> int:
    """Bits 4.. of the address are exchanged for their exclusive or with as many bits from 7 on."""
    chunks = span // 16
    chunk, row = address // 16 % chunks, address // 128 % chunks
    return address + 16 * ((chunk ^ row) - chunk)


def tile(x: np.ndarray, corner: Sequence[int], box: Sequence[int], step: Sequence[int] | None = None) -> np.ndarray:
    """What TMA reads for a box of x (dimensions of x outermost first; corner, box and step innermost first): an array
    of the box's shape, outermost first, with zeros outside of x."""
    rank = x.ndim
    step = step or [1] * rank
    counts = [-(-box[i] // step[i]) for i in range(rank)]
    found = np.zeros(counts[::-1], x.dtype)
    for index in itertools.product(*(range(count) for count in counts[::-1])):
        at = [corner[rank - 1 - d] + i * step[rank - 1 - d] for d, i in enumerate(index)]
        if all(0 <= a < size for a, size in zip(at, x.shape, strict=True)):
            found[index] = x[tuple(at)]
    return found


def place(shared: np.ndarray, address: int, values: np.ndarray, span: int) -> None:
    """Writes values, dense in C order, as TMA does: byte by byte at their swizzled addresses."""
    for offset, byte in enumerate(np.ascontiguousarray(values).reshape(-1).view(np.uint8)):
        shared[swizzled(address + offset, span)] = byte


def read(shared: np.ndarray, descriptor: int, mn_major: bool, row: int, k: int, dtype: np.dtype) -> np.generic:
    """Element k of a row of A (or column of B) that wgmma finds through a descriptor."""
    size = np.dtype(dtype).itemsize
    start, leading, stride = (16 * (descriptor >> shift & 0x3FFF) for shift in (0, 16, 32))
    span = {0: 16, 1: 128, 2: 64, 3: 32}[descriptor >> 62]
    if not mn_major:
        byte = k * size
        if span == 16:
            address = start + row % 8 * 16 + row // 8 * stride + byte // 16 * leading + byte % 16
        else:
            address = start + row % 8 * span + row // 8 * stride + byte
    else:
        dense = span // size
        block, next_k = (stride, leading) if span == 16 else (leading, stride)
        address = start + row % dense * size + row // dense * block + k % 8 * span + k // 8 * next_k
    address = swizzled(address, span)
    return shared[address : address + size].view(dtype)[0]


def operand(shared: np.ndarray, descriptor: int, mn_major: bool, rows: int, dtype: np.dtype) -> np.ndarray:
    """[rows, k] that one instruction reads; k is 32 bytes."""
    depth = 32 // np.dtype(dtype).itemsize
    return np.array([[read(shared, descriptor, mn_major, r, k, dtype) for k in range(depth)] for r in range(rows)])


def accumulator_place(thread: int, v: int) -> tuple[int, int]:
    """Row and column of the matrix that a warpgroup's thread holds as its v-th accumulator."""
    warp, lane = divmod(thread, 32)
    return 16 * warp + lane // 4 + 8 * (v // 2 % 2), 8 * (v // 4) + 2 * (lane % 4) + v % 2


def accumulators_to_matrix(fragments: np.ndarray) -> np.ndarray:
    """[128, N / 2] of a warpgroup's threads -> [64, N]."""
    matrix = np.empty((64, 2 * fragments.shape[1]), fragments.dtype)
    for thread, v in np.ndindex(fragments.shape):
        matrix[accumulator_place(thread, v)] = fragments[thread, v]
    return matrix


def matrix_to_accumulators(matrix: np.ndarray) -> np.ndarray:
    """The inverse."""
    fragments = np.empty((128, matrix.shape[1] // 2), matrix.dtype)
    for thread, v in np.ndindex(fragments.shape):
        fragments[thread, v] = matrix[accumulator_place(thread, v)]
    return fragments


# mma.sync's fragments, element by element: (row, k) of A, (column, k) of B, (row, column) of D that a lane's v-th
# element is; by the size of an element in bytes. g = lane // 4, c = lane % 4.
MMA_A = {
    1: lambda g, c, v: (g + 8 * (v >> 2 & 1), 4 * c + (v & 3) + 16 * (v >> 3)),
    2: lambda g, c, v: (g + 8 * (v >> 1 & 1), 2 * c + (v & 1) + 8 * (v >> 2)),
    4: lambda g, c, v: (g + 8 * (v & 1), c + 4 * (v >> 1)),
    8: lambda g, c, v: (g, c),
}
MMA_B = {
    1: lambda g, c, v: (g, 4 * c + (v & 3) + 16 * (v >> 2)),
    2: lambda g, c, v: (g, 2 * c + (v & 1) + 8 * (v >> 1)),
    4: lambda g, c, v: (g, c + 4 * v),
    8: lambda g, c, v: (g, c),
}


def mma_d(g: int, c: int, v: int, double: bool = False) -> tuple[int, int]:
    """Row and column of accumulator v."""
    return (g, 2 * c + v) if double else (g + 8 * (v >> 1), 2 * c + (v & 1))


def fragments(matrix: np.ndarray, layout: dict, bytes_a_lane: int) -> np.ndarray:
    """The 32 lanes' operand [32, elements] of one instruction, from A [m, k] or B given as [n, k]."""
    size = matrix.dtype.itemsize
    held = np.empty((32, bytes_a_lane // size), matrix.dtype)
    for lane, v in np.ndindex(held.shape):
        held[lane, v] = matrix[layout[size](lane // 4, lane % 4, v)]
    return held
