"""Triton's products of INT8: every tile of both, ranges, what is packed, narrow groups, and weights alone in INT8."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.common.target import family
from cnnkernels.triton_kernels.int8_gemm.select import TABLE, Configuration
from cnnkernels.triton_kernels.int8_pool.int8_pool import PROGRAMS, TILES
from cnnkernels.triton_kernels.int8_weight_only_linear.int8_weight_only_linear import EXACT_TILES
from cnnkernels.triton_kernels.int8_weight_only_linear.int8_weight_only_linear import TILES as WIDENING_TILES

from cnnkernels import functional, triton_kernels
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.testing.cases import ConvCase
from helpers.every_triton_kernel import Launch, Trial, Wanted

SMALL = ConvCase("small", 2, 80, 6, 5, 40, 2, 2, padding=(1, 1, 1, 1))
WHOLE = ConvCase("whole steps of most tiles", 2, 128, 6, 5, 40, 2, 2)
GEMM, CONV = "int8_gemm.kernel.gemm_kernel", "int8_conv.forward.forward_kernel"
# Rows of a product, by the tile that serves them.
ROWS = (5, 40, 100)


def rows(arch: int) -> list[dict[str, Any]]:
    return [row for row in TABLE["candidates"] if family(arch) in row.get("families", [family(arch)])]


def tile(row: dict[str, Any]) -> Configuration:
    return Configuration(*row["block"], row["warps"], row["stages"])


def integers(*shape: int, dtype: torch.dtype = torch.int8) -> torch.Tensor:
    return torch.randint(-9, 10, shape).to(dtype)


def gemm_is_right(c: Configuration, row_major: bool) -> bool:
    """A reduction of several steps, and no whole number of them where `row_major`."""
    k = 2 * c.block_k + (0 if not row_major else 20)
    a, b = integers(33, k), integers(k, 48) if row_major else integers(48, k).t()
    made = torch.empty(33, 48, dtype=torch.int32)
    triton_kernels.int8_gemm(a, b, made, Int8Epilogue(), c)
    return torch.equal(made, (a.double() @ b.double()).int())


def conv_is_right(c: Configuration, case: ConvCase) -> bool:
    x = integers(*case.input_shape).contiguous(memory_format=torch.channels_last)
    w = integers(*case.weight_shape).contiguous(memory_format=torch.channels_last)
    made = torch.empty(case.output_shape, dtype=torch.int32).contiguous(memory_format=torch.channels_last)
    triton_kernels.int8_conv(x, w, made, case.geometry, Int8Epilogue(), c)
    return torch.equal(made, F.conv2d(x.double(), w.double(), padding=case.padding[0]).int())


def narrow_is_right(groups: int, taps: int = 3) -> bool:
    """Of single channels, with a zero point; and of several, without."""
    x = integers(2, 8, 5, 6).contiguous(memory_format=torch.channels_last)
    w, zero, pad = integers(8, 8 // groups, taps, taps - 1), 3 if groups == 8 else 0, taps // 2
    made = functional.int8_conv2d(x, w, groups=groups, padding=pad, input_zero_point=zero)
    return torch.equal(made, F.conv2d(x.double() - zero, w.double(), padding=pad, groups=groups).int())


def sums_are_right(length: int) -> bool:
    """What a zero point takes off, in tiles for long rows and for short ones; every other byte of a row."""
    a, b = integers(33, 2 * length)[:, ::2], integers(24, length)
    made = functional.int8_gemm(a, b.t(), zero_point_a=2, zero_point_b=1)
    return torch.equal(made, ((a.double() - 2) @ (b.double() - 1).t()).int())


def weight_only_is_right(m: int, dtype: torch.dtype) -> bool:
    """Whole steps of fp32's tiles, and of the others not."""
    k = 256 if dtype is torch.float32 else 272
    x, w = torch.randint(-2, 3, (m, k)).to(dtype), torch.randint(-2, 3, (40, k)).to(torch.int8)
    return torch.equal(functional.int8_weight_only_linear(x, w), (x.double() @ w.double().t()).to(dtype))


def pool_is_right(elements: int, maximum: bool, override: int | None) -> bool:
    """So many outputs that a program takes `elements` of them."""
    side = 0 if elements == TILES[-1] else elements * PROGRAMS // 4096
    x = integers(1, 16, side + 9, 260).contiguous(memory_format=torch.channels_last)
    if maximum and side == 0:
        return torch.equal(functional.int8_max_pool2d(x, 5), F.max_pool2d(x.double(), 5).to(torch.int8))
    if maximum:
        return torch.equal(functional.int8_max_pool2d(x, 1), x)
    x = 4 * (x // 4)
    made = functional.int8_avg_pool2d(x, (1, 1), divisor_override=override)
    return torch.equal(made, (x.double() / (override or 1)).to(torch.int8))


def trials(arch: int, turn: int) -> Iterator[Trial]:
    for number, row in enumerate(rows(arch)):
        c = tile(row)
        yield Trial(f"int8_gemm {c}", partial(gemm_is_right, c._replace(splits=1 + number % 2), number % 3 == 0))
        yield Trial(f"int8_conv {c}", partial(conv_is_right, c, WHOLE if number % 3 == 1 else SMALL))
    for groups in (8, 4):
        yield Trial(f"int8_conv of {groups} groups", partial(narrow_is_right, groups))
    yield Trial("int8_conv of many taps", partial(narrow_is_right, 8, 9))
    yield Trial("int8_gemm's zero points", partial(sums_are_right, (12, 300)[turn]))
    for m in ROWS:
        dtype = torch.float16 if m == ROWS[turn] else torch.bfloat16
        yield Trial(f"weights alone, {m} rows of {dtype}", partial(weight_only_is_right, m, dtype))
    for m in ROWS[:2]:
        yield Trial(f"weights alone, {m} rows of fp32", partial(weight_only_is_right, m, torch.float32))
    for number, elements in enumerate(TILES):
        if number % 2 == turn:
            yield Trial(f"int8_max_pool of {elements}", partial(pool_is_right, elements, True, None))
            yield Trial(f"int8_avg_pool of {elements}", partial(pool_is_right, elements, False, None if turn else 4))


def wanted(arch: int) -> Iterator[Wanted]:
    for kernel, row in itertools.product((GEMM, CONV), rows(arch)):
        m, n, k = row["block"]
        sizes = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "num_warps": row["warps"], "num_stages": row["stages"]}
        yield Wanted(kernel, str(tile(row)), lambda launch, sizes=sizes: launch.has(**sizes), True)
    for tiles, elements in ((WIDENING_TILES, (torch.float16, torch.bfloat16)), (EXACT_TILES, (torch.float32,))):
        for c in tiles.values():

            def seen(launch: Launch, c: Any = c, elements: tuple[torch.dtype, ...] = elements) -> bool:
                sizes = {"BLOCK_M": c.block_m, "BLOCK_N": c.block_n, "BLOCK_K": c.block_k}
                return launch.element in elements and launch.has(**sizes, num_warps=c.warps, num_stages=c.stages)

            kernel = "int8_weight_only_linear.int8_weight_only_linear.linear_kernel"
            yield Wanted(kernel, f"{c} of {elements}", seen, True)
    for elements, maximum in itertools.product(TILES, (False, True)):

        def takes(launch: Launch, elements: int = elements, maximum: bool = maximum) -> bool:
            return launch.has(MAXIMUM=maximum) and launch.constants["A"] * launch.constants["B"] == elements

        yield Wanted("int8_pool.int8_pool.int8_pool_kernel", f"{elements} {'max' if maximum else 'avg'}", takes, False)
    for block in ((16, 256), (256, 16)):
        m, k = block
        yield Wanted(
            "int8.pack.pack_kernel", str(block), lambda launch, m=m, k=k: launch.has(BLOCK_M=m, BLOCK_K=k), False
        )
