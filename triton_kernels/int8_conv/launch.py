"""int8_conv in Triton: launches the kernels of int8_conv/forward.py and, for narrow groups, int8_conv/direct.py.

Input [N, C, H, W], filters [K, C / groups, R, S] and output [N, K, P, Q] are dense and channels_last in memory. A
convolution that is a plain product of matrices is left to int8_gemm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...geometry import ConvGeometry, Layout
from ...int8.epilogue import Int8Epilogue
from ..common import geometry
from ..common.target import MOST_REGISTERS, on, target
from ..common.tiles import FEW_CHANNELS, NARROWEST_GROUP
from ..depthwise_conv.select import Problem as DepthwiseProblem
from ..depthwise_conv.select import choose as choose_depthwise
from ..int8.epilogue import OPTIONS, arguments, has_zero_point, shift_of
from ..int8.pack import pack
from ..int8_gemm.launch import int8_gemm
from ..int8_gemm.select import Configuration, Problem, choose, packing_pays
from .direct import depthwise_kernel, direct_kernel
from .forward import forward_kernel

# Pixels times filters of a tile of the elementwise kernel.
DIRECT_TILE = 1024


def _product_length(g: ConvGeometry) -> int:
    """The reduction of a convolution that is the product of two matrices in memory, a window a row; 0 if it is none."""
    if g.groups > 1 or g.pad_h or g.pad_w:
        return 0
    if (g.r, g.s, g.stride_h, g.stride_w, g.p, g.q) == (1, 1, 1, 1, g.h, g.w):
        return g.c
    covers = (g.r, g.s, g.p, g.q) == (g.h, g.w, 1, 1)
    return g.c * g.h * g.w if covers else 0


def _as_matrix(tensor: Tensor, length: int) -> Tensor:
    """The memory of a dense tensor as rows of a length."""
    return tensor.as_strided((tensor.numel() // length, length), (length, 1))


def _padded(g: ConvGeometry) -> bool:
    """May a window leave the image?"""
    below = (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h - g.pad_h >= g.h
    right = (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w - g.pad_w >= g.w
    return bool(g.pad_h or g.pad_w or below or right)


def problem_of(g: ConvGeometry, arch: int) -> Problem:
    """What the choice of tiles depends on."""
    channels, filters = g.c // g.groups, g.k // g.groups
    width, flat = math.gcd(channels, 16), g.r * g.s > 1 and channels < FEW_CHANNELS
    return Problem(g.n * g.p * g.q, filters, channels, g.r * g.s, g.groups, width, flat, arch)


def int8_conv(
    input: Tensor,
    weight: Tensor,
    output: Tensor,
    geometry: ConvGeometry,
    epilogue: Int8Epilogue,
    configuration: Configuration | None = None,
) -> None:
    """Writes output [N, K, P, Q]; the configuration of the implicit GEMM is chosen unless given."""
    g, length = geometry, _product_length(geometry)
    if length and configuration is None:
        rows, filters = _as_matrix(input, length), _as_matrix(weight, length)
        int8_gemm(rows, filters.t(), _as_matrix(output, g.k), epilogue)
        return
    with on(input):
        if g.groups > 1 and g.k // g.groups < NARROWEST_GROUP and configuration is None:
            _narrow(input, weight, output, g, epilogue)
        else:
            _implicit(input, weight, output, g, epilogue, configuration)


def _slices(
    input: Tensor, output: Tensor, g: ConvGeometry, epilogue: Int8Epilogue, sums: Tensor | None
) -> Iterator[tuple[ConvGeometry, Tensor, Tensor, tuple[float | Tensor, ...], dict[str, Any]]]:
    """What 32-bit offsets reach: geometry, input, output, the kernels' `numbers` and compile-time arguments of each.
    `sums`: of the filters, for a kernel that does not take the zero point from each byte."""
    images = (input, output) if epilogue.residual is None else (input, output, epilogue.residual)
    for part, x, y, *residual in geometry.in_slices(g, *images):
        e = epilogue._replace(residual=residual[0]) if residual else epilogue
        numbers, parts = arguments(e, y, shift_of(input), 0, None, sums)
        yield part, x, y, numbers, {"WIDE": geometry.is_wide(part), "PARTS": parts} | OPTIONS


def _copy_pays(g: ConvGeometry) -> bool:
    """Are a pixel's channels so few or so odd that copying them for wider loads pays?"""
    channels, filters = g.c // g.groups, g.k // g.groups
    uses = filters * g.r * g.s // (g.stride_h * g.stride_w)
    return channels % 4 != 0 and packing_pays(g.n * g.h * g.w, g.c, uses)


def _implicit(
    input: Tensor,
    weight: Tensor,
    output: Tensor,
    g: ConvGeometry,
    epilogue: Int8Epilogue,
    configuration: Configuration | None,
) -> None:
    zero_point, sums, taps = _number(epilogue.zero_point_a), epilogue.sums_b, g.r * g.s
    needs_sums, fill, copied = has_zero_point(zero_point, input), zero_point, _copy_pays(g)
    if needs_sums and sums is None:
        sums = pack(_as_matrix(weight, g.c // g.groups * taps), False, True)[1]
    if copied:
        weight, fill = pack(_as_matrix(weight, g.c // g.groups), True, False)[0], zero_point - shift_of(input)
    for part, x, y, numbers, constants in _slices(input, output, g, epilogue, sums if needs_sums else None):
        if copied:
            x = pack(_as_matrix(x, g.c // g.groups), True, False)[0]
            part = part._replace(c=g.groups * x.shape[1])
            constants["WIDE"] = geometry.is_wide(part)
        problem = problem_of(part, target(x).arch)
        c = configuration or choose(problem)
        channels, filters, flat = problem.channels, problem.columns, problem.channels if problem.flat else 0
        unit_c, unit_k = math.gcd(channels, 16), math.gcd(filters, 16)
        tiles = math.ceil(problem.rows / c.block_m) * math.ceil(filters / c.block_n) * g.groups
        forward_kernel[(tiles,)](
            x, weight, numbers, y, float(fill), geometry.arguments(part, unit_c, unit_k),
            R=g.r, S=g.s, UNIT_C=unit_c, UNIT_K=unit_k, FLAT=flat, PADDED=_padded(g), FILLED=fill != 0,
            MASKED=(flat * taps or channels) % c.block_k != 0, PIECES=c.pieces,
            BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, num_warps=c.warps, num_stages=c.stages,
            **constants,
        )  # fmt: skip


def _narrow(input: Tensor, weight: Tensor, output: Tensor, g: ConvGeometry, epilogue: Int8Epilogue) -> None:
    zero_point = _number(epilogue.zero_point_a)
    for part, x, y, numbers, constants in _slices(input, output, g, epilogue, None):
        operands = (x, weight, float(zero_point) if zero_point else None, numbers, y)
        # A byte becomes 4 of a thread's registers as soon as it is loaded.
        depthwise = DepthwiseProblem("forward", 4, Layout.NHWC, part, target(x).arch)
        chosen = choose_depthwise(depthwise) if g.groups == g.c else None
        if chosen:
            c, p = chosen
            depthwise_kernel[(p.tiles,)](
                *operands, p.sizes(part),
                ROWS=p.rows, COLUMNS=p.columns, MULTIPLIER=g.k // g.c, UNROLLED=c.unrolled, UNIT=p.unit,
                A=c.a, B=c.b, num_warps=c.warps, num_stages=1, maxnreg=MOST_REGISTERS, **constants,
            )  # fmt: skip
            continue
        block_n = min(64, 2 ** math.ceil(math.log2(g.k)))
        block_m = DIRECT_TILE // block_n
        tiles = math.ceil(part.n * g.p * g.q / block_m) * math.ceil(g.k / block_n)
        direct_kernel[(tiles,)](
            *operands, geometry.arguments(part),
            R=g.r, S=g.s, BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=3, **constants,
        )  # fmt: skip


def _number(zero_point: int | Tensor) -> int:
    if isinstance(zero_point, Tensor):
        raise TypeError("int8_conv2d(): zero_point_a must be int, as it is what padding stands for, not Tensor")
    return zero_point
