"""What operators on small images do not take of the other kernels: windows of many places, bins that overlap, and the
ways in which quantize finds its scales."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, triton_kernels
from cnnkernels.geometry import Layout
from helpers.emulated.operators import gradients
from helpers.every_triton_kernel import Trial, Wanted, conv, depthwise_conv, int8

ROWS = "quantize.quantize.quantize_rows_kernel"
# Rows and their length, by the warps of a program.
LENGTHS = {1: (1, 300), 2: (1, 2000), 4: (1, 4000), 8: (1, 8000), 16: (1, 16000)}
# outer, groups, inner: runs of planes, columns
SHAPES = ((2, 3, 1099), (101, 19, 1))


def multiples(of: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return of * torch.randint(-2, 3, shape).to(dtype)


def many_places(layout: torch.memory_format) -> bool:
    """Windows of more than are unrolled, which overlap as much."""
    x = multiples(1, 1, 3, 9, 8).contiguous(memory_format=layout)
    mine = gradients(lambda x: functional.max_pool2d(x, 5, 1, 2), x)
    return all(map(torch.equal, mine, gradients(lambda x: F.max_pool2d(x, 5, 1, 2), x)))


def means(layout: torch.memory_format) -> bool:
    """Windows with and without one divisor, of few places and many; bins that overlap. All divisors are powers of 2."""
    x = multiples(64, 1, 3, 9, 8).contiguous(memory_format=layout)
    calls: list[tuple[Any, Any, tuple[Any, ...]]] = [
        (functional.avg_pool2d, F.avg_pool2d, (8, 1)),
        (functional.avg_pool2d, F.avg_pool2d, (2, 2, 1, False, False)),
        (functional.adaptive_avg_pool2d, F.adaptive_avg_pool2d, ((9, 4),)),
        (functional.adaptive_avg_pool2d, F.adaptive_avg_pool2d, ((40, 41),)),
    ]
    return all(
        all(map(torch.equal, gradients(partial(given, ours, sizes), x), gradients(partial(given, theirs, sizes), x)))
        for ours, theirs, sizes in calls
    )


def given(function: Any, sizes: tuple[Any, ...], x: Tensor) -> Any:
    return function(x, *sizes)


def gathered(layout: torch.memory_format) -> bool:
    """What a gradient of max_pool2d's gradient is."""
    x = multiples(1, 1, 3, 6, 8).contiguous(memory_format=layout)

    def twice(function: Any) -> Tensor:
        leaf = x.clone().requires_grad_()
        y = function(leaf, 2)
        dy = torch.ones_like(y).requires_grad_()
        (dx,) = torch.autograd.grad(y, leaf, dy, create_graph=True)
        return torch.autograd.grad(dx, dy, x)[0]

    return torch.equal(twice(functional.max_pool2d), twice(F.max_pool2d))


def unpooled(layout: torch.memory_format) -> bool:
    x = multiples(1, 1, 3, 8, 6).contiguous(memory_format=layout)
    y, places = F.max_pool2d(x, 2, return_indices=True)
    mine = gradients(lambda y: functional.max_unpool2d(y, places, 2), y)
    return all(map(torch.equal, mine, gradients(lambda y: F.max_unpool2d(y, places, 2), y)))


def scales(shape: tuple[int, int, int]) -> bool:
    """Integers to 127, which the scale 1 leaves as they are."""
    x = torch.randint(-126, 127, shape).float()
    x[0, :, 0] = 127
    q, scale = torch.empty(shape, dtype=torch.int8), torch.empty(shape[1])
    triton_kernels.quantize(x, q, scale, 0, True)
    same = torch.equal(scale, torch.ones(shape[1])) and torch.equal(q, x.to(torch.int8))
    triton_kernels.quantize(x, q, 2.0, 3)
    y = torch.empty(shape)
    triton_kernels.dequantize(q, y, 2.0, 3)
    half = (torch.round(x / 2) + 3).clamp(-128, 127)
    return same and torch.equal(q, half.to(torch.int8)) and torch.equal(y, (half - 3) * 2)


def trials(turn: int) -> Iterator[Trial]:
    layout = (torch.channels_last, torch.contiguous_format)[turn]
    yield Trial("max_pool2d of many places", partial(many_places, layout))
    yield Trial("means", partial(means, layout))
    yield Trial("max_pool2d's second gradient", partial(gathered, layout))
    yield Trial("max_unpool2d", partial(unpooled, layout))
    for shape in SHAPES:
        yield Trial(f"quantize {shape}", partial(scales, shape))
    for number, (rows, length) in enumerate(LENGTHS.values()):
        if number % 2 == turn:
            yield Trial(f"quantize rows of {length}", partial(scales, (1, rows, length)))


def beyond_32_bits(arch: int) -> Iterator[Trial]:
    """What operators.py does not launch of the kernels that have 64-bit arithmetic; in helpers' with_64_bits()."""
    for op in conv.OPERATIONS:
        yield Trial(f"{op}, narrow", partial(conv.is_right, conv.NARROW, op, Layout.NHWC, "fp16"))
    (row, *_) = depthwise_conv.rows_of_pairs(arch, True)
    yield Trial("pair backward", partial(depthwise_conv.pair_is_right, True, *row))
    for groups in (8, 4):
        yield Trial(f"int8_conv of {groups} groups", partial(int8.narrow_is_right, groups))
    (smallest, *_) = (int8.tile(row) for row in int8.rows(arch)[::-1])
    yield Trial("int8_gemm in ranges", partial(int8.gemm_is_right, smallest._replace(splits=2), False))
    for shape in (*SHAPES, (1, 3, 300)):
        yield Trial(f"quantize {shape}", partial(scales, shape))
    yield Trial("max_pool2d's second gradient", partial(gathered, torch.channels_last))


def wanted() -> Iterator[Wanted]:
    for warps in LENGTHS:
        yield Wanted(ROWS, f"{warps} warps", lambda launch, warps=warps: launch.has(num_warps=warps), False)
