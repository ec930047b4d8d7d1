"""int8_gemm in Triton: launches the kernels of int8_gemm/kernel.py with the tiles that int8_gemm/select.py chooses.

Tensor cores read both operands along the reduction. Where one lies otherwise (a row-major b, rows of odd length) and is
read often enough, it is first copied (int8/pack.py).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...int8.epilogue import Int8Epilogue
from ..common.target import on, target
from ..common.types import LARGEST_INDEX
from ..int8.epilogue import OPTIONS, Parts, arguments, has_zero_point, shift_of
from ..int8.pack import pack
from ..int8.tile import BAND
from .kernel import add_ranges_kernel, gemm_kernel
from .select import Configuration, Problem, choose, packing_pays, split

# The tile of the kernel that adds ranges.
ADDED = {"BLOCK_M": 8, "BLOCK_N": 128}
# Neighbouring bytes that loads of a large product should take.
WIDE_LOAD = 8


class Operand(NamedTuple):
    """A matrix [rows, K] of any strides; those of a dimension of size 1 as they suit, dense."""

    tensor: Tensor
    stride: int
    step: int

    @property
    def across(self) -> bool:
        """Are neighbours in memory those of a column?"""
        return self.step != 1 and self.stride == 1

    @property
    def unit(self) -> int:
        """What the larger stride is a multiple of, as the compiler is told."""
        return math.gcd(self.step if self.across else self.stride, 16) if 1 in (self.step, self.stride) else 1

    @property
    def width(self) -> int:
        """Neighbouring bytes of a row that one load takes."""
        return math.gcd(self.unit, self.tensor.shape[1], self.tensor.data_ptr()) if self.step == 1 else 1

    @property
    def reach(self) -> int:
        rows, length = self.tensor.shape
        return (rows - 1) * self.stride + (length - 1) * self.step


def operand(rows: Tensor) -> Operand:
    count, length = rows.shape
    return Operand(rows, rows.stride(0) if count > 1 else 0, rows.stride(1) if length > 1 else 1)


def _copied(a: Tensor, b: Tensor) -> tuple[bool, bool]:
    """Which of two operands [M, K] and [N, K] to copy. Rows that end within a load need both to be copied: otherwise
    the other's loads would be as narrow."""
    (m, k), n = a.shape, b.shape[0]
    pay = packing_pays(m, k, n), packing_pays(n, k, m)
    if k % WIDE_LOAD:
        return all(pay), all(pay)
    return pay[0] and operand(a).width < WIDE_LOAD, pay[1] and operand(b).width < WIDE_LOAD


def problem_of(a: Operand, b: Operand) -> Problem:
    """What the choice of tiles depends on."""
    (m, k), n = a.tensor.shape, b.tensor.shape[0]
    # Columns side by side in memory are loaded as such.
    width = math.gcd(b.unit, n, b.tensor.data_ptr()) if b.across else b.width
    return Problem(m, n, k, 1, 1, min(a.width, width), False, target(a.tensor).arch)


def int8_gemm(
    a: Tensor, b: Tensor, output: Tensor, epilogue: Int8Epilogue, configuration: Configuration | None = None
) -> None:
    """Writes output [M, N], row-major, from a [M, K] and b [K, N] of any strides; the configuration is chosen unless
    given."""
    k = a.shape[1]
    with on(a):
        needs_sums_b, sums_b = has_zero_point(epilogue.zero_point_a, a), epilogue.sums_b
        copied = _copied(a, b.t())
        rows, sums_a = pack(a, copied[0], has_zero_point(epilogue.zero_point_b, b))
        columns, summed = pack(b.t(), copied[1], needs_sums_b and sums_b is None)
        sums_b = (summed if sums_b is None else sums_b) if needs_sums_b else None
        numbers, parts = arguments(epilogue, output, shift_of(a), k, sums_a, sums_b)
        _product(operand(rows), operand(columns), numbers, parts, output, configuration)


def _product(
    a: Operand,
    b: Operand,
    numbers: tuple[float | Tensor, ...],
    parts: Parts,
    output: Tensor,
    configuration: Configuration | None,
) -> None:
    problem = problem_of(a, b)
    c = configuration or choose(problem)
    c = split(problem, c, c.splits)
    (m, n), k = output.shape, problem.channels
    sums = output
    if c.splits > 1:
        sums = torch.empty((c.splits, m, n), dtype=torch.int32, device=output.device)
    unit_n, unit_k = math.gcd(n, 16), math.gcd(k, 16)
    wide = max(a.reach, b.reach, sums.numel(), m, n, k) > LARGEST_INDEX
    constants: dict[str, Any] = {"UNIT_N": unit_n, "WIDE": wide, "PARTS": parts} | OPTIONS
    b_strides = (b.step // b.unit, b.stride) if b.across else (b.step, b.stride // b.unit)
    tiles = math.ceil(m / c.block_m) * math.ceil(n / c.block_n)
    gemm_kernel[(tiles, c.splits)](
        a.tensor, b.tensor, numbers, sums, m, n // unit_n, k // unit_k,
        a.stride if a.across else a.stride // a.unit, a.step, *b_strides, c.each,
        UNIT_A=1 if a.across else a.unit, UNIT_B=b.unit, UNIT_K=unit_k, MASKED=k % c.block_k != 0, ALONG_N=b.across,
        SPLIT=c.splits > 1, PIECES=c.pieces,
        BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, BAND=BAND,
        num_warps=c.warps, num_stages=c.stages, **constants,
    )  # fmt: skip
    if c.splits > 1:
        grid = math.ceil(m / ADDED["BLOCK_M"]), math.ceil(n / ADDED["BLOCK_N"])
        add_ranges_kernel[grid](sums, numbers, output, m, n // unit_n, c.splits, **ADDED, **constants)
