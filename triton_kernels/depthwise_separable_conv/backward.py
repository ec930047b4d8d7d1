"""depthwise_separable_conv2d's backward in one Triton kernel: from the error g of the 1x1's sums

    error of z[n, m, p, q] = a'(z[n, m, p, q]) sum over k of wp[k, m] g[n, k, p, q]
    gradient of wp[k, m]   = sum over n, p, q of g[n, k, p, q] a(z[n, m, p, q])

A program owns a block of channels and a part of the pixels, and sums the gradient of a tile of filters over them. The
depthwise sums z are made as the forward makes them, with its bits, or read where they were saved; neither they nor a(z)
are stored. Programs of the first tile of filters also make z's error, over all filters. Parts are added in order.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...dtypes import dtype_name
from ...geometry import ConvGeometry, Layout
from ..common.activation import activate_derivative
from ..common.partials import partials, sum_partials
from ..common.target import gpu_of, on, target
from ..common.tiles import image_offset, multiply, pixel_axis, product
from ..common.types import accumulator, along, indices, narrow
from ..depthwise_conv.patch import step, zeros
from ..depthwise_conv.sweep import add_bias, add_taps
from .forward import activated, side_by_side, sizes_of_pair
from .select import Configuration, Problem, arguments, choose_backward


@triton.jit
def backward_kernel(
    grad,
    input,
    depthwise_weight,
    pointwise_weight,
    depthwise_bias,
    intermediate,
    grad_intermediate,
    parts,
    sizes,
    blocks_a_part,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    FIRST: tl.constexpr,
    SLOPE: tl.constexpr,
    UNIT: tl.constexpr,
    POINTWISE_UNIT: tl.constexpr,
    STORE: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    LANES: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
):
    """What is None is not given, or not wanted."""
    N, C, H, W, M, P, Q, K = sizes_of_pair(sizes, UNIT, POINTWISE_UNIT, COLUMNS.chunk, STORE, WIDE)
    AXIS: tl.constexpr = pixel_axis(NHWC)
    A: tl.constexpr = LANES if NHWC else CHANNELS
    B: tl.constexpr = CHANNELS if NHWC else LANES
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    PLACES: tl.constexpr = TP * TQ
    TAPS: tl.constexpr = ROWS.taps * COLUMNS.taps
    PIXELS: tl.constexpr = LANES * PLACES
    element: tl.constexpr = input.dtype.element_ty
    sum: tl.constexpr = accumulator(element)
    pid = tl.program_id(0)
    tiles = tl.cdiv(K, FILTERS)
    turns = tl.cdiv(M, CHANNELS)
    across = tiles if parts is not None else 1
    tile, turn, part = pid % across, pid // across % turns, pid // across // turns
    columns = tl.cdiv(Q, TQ)
    patches = tl.cdiv(P, TP) * columns
    m = along(indices(turn, CHANNELS, WIDE), 1 - AXIS)
    own = indices(tile, FILTERS, WIDE)
    gradient = tl.zeros((FILTERS, CHANNELS), sum)
    last = tl.minimum((part + 1) * blocks_a_part, tl.cdiv(N * patches, LANES))
    for block in range(part * blocks_a_part, last):
        # The tile's pixels, a lane's places side by side.
        pixel = along(indices(block, PIXELS, WIDE), AXIS)
        place, of = pixel % PLACES, pixel // PLACES
        n = of // patches
        p = of % patches // columns * TP + place // TQ
        q = of % columns * TQ + place % TQ
        there = (of < N * patches) & (p < P) & (q < Q)
        at_z = image_offset(n, p, q, m, P, Q, M, NHWC)
        if intermediate is not None:
            z = tl.load(intermediate + at_z, mask=there & (m < M), other=0.0)
        else:
            lane = along(indices(block, LANES, WIDE), AXIS)
            sums = add_taps(
                zeros(PLACES, A, B, sum), input, None, depthwise_weight + m * TAPS, lane // patches,
                lane % patches // columns * step(ROWS), lane % columns * step(COLUMNS), m // MULTIPLIER,
                (lane < N * patches) & (m < M), m < M, C, H, W, ROWS, COLUMNS, False, NHWC,
            )  # fmt: skip
            sums = side_by_side(add_bias(sums, depthwise_bias, m, m < M), NHWC)
            z = narrow(tl.where(there, sums, 0.0), element)

        if parts is not None:
            k = along(own, 1 - AXIS)
            g = tl.load(grad + image_offset(n, p, q, k, P, Q, K, NHWC), mask=there & (k < K), other=0.0)
            middle = activated(z.to(sum), FIRST, SLOPE, element)
            if NHWC:
                gradient = multiply(tl.trans(g), middle, gradient, PRECISION)
            else:
                gradient = multiply(g, tl.trans(middle), gradient, PRECISION)
        if grad_intermediate is not None:  # noqa: SIM102 - known when it is compiled, the tile is not
            if tile == 0:
                total = tl.zeros((PIXELS, CHANNELS) if NHWC else (CHANNELS, PIXELS), sum)
                for t in range(tiles):
                    index = indices(t, FILTERS, WIDE)
                    k, row = along(index, 1 - AXIS), along(index, AXIS)
                    g = tl.load(grad + image_offset(n, p, q, k, P, Q, K, NHWC), mask=there & (k < K), other=0.0)
                    f = tl.load(pointwise_weight + row * M + m, mask=(row < K) & (m < M), other=0.0)
                    total = product(g, f, total, NHWC, PRECISION)
                error = narrow(total, element)
                if FIRST != "none":
                    slope = activate_derivative(z.to(sum), SLOPE, FIRST)
                    error = narrow(tl.where(slope == 0, 0.0, error.to(sum) * slope), element)
                tl.store(grad_intermediate + at_z, error, mask=there & (m < M))
    if parts is not None:
        k, c = own[:, None], indices(turn, CHANNELS, WIDE)[None, :]
        at = parts + (tl.cast(part, tl.int64) * K + k) * M + c
        tl.store(at, narrow(gradient, parts.dtype.element_ty), mask=(k < K) & (c < M))


def depthwise_separable_conv_fuses_backward(dtype: torch.dtype, filters: int, tf32: bool) -> bool:
    """Whether the kernel pays for a pair with so many pointwise filters.

    It makes z anew for each tile of up to 64 of them: 16-bit types pay for four times by what they save. csrc's rule is
    the same, for its tiles (select.h, backward_pays), but for fp32, whose sums do not all fit this kernel's registers.
    """
    return dtype is torch.float64 or (dtype is not torch.float32 and filters <= 256)


def depthwise_separable_conv_backward(
    grad_output: Tensor,
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor | None,
    depthwise_bias: Tensor | None,
    intermediate: Tensor | None,
    grad_intermediate: Tensor | None,
    grad_pointwise: Tensor | None,
    geometry: ConvGeometry,
    layout: Layout,
    depthwise_activation: str,
    negative_slope: float,
    configuration: Configuration | None = None,
    splits: int | None = None,
) -> None:
    """Writes z's error [N, M, P, Q] and the pointwise filter's gradient [K, M, 1, 1], either of which may be None.

    `geometry` is the depthwise convolution's. z is read where it is given. The configuration, and the number of parts
    that pixels are divided into, are chosen unless given; z's error depends on neither the batch nor the parts.
    """
    g, filters = geometry, grad_output.shape[1]
    with on(input):
        arch = target(input).arch
        problem = Problem(dtype_name(input.dtype, False), layout, g._replace(n=1), filters, arch)
        c = configuration or choose_backward(problem)
        blocks = math.ceil(g.n * math.ceil(g.p / c.patch[0]) * math.ceil(g.q / c.patch[1]) / c.lanes)
        tiles = math.ceil(filters / c.filters) if grad_pointwise is not None else 1
        programs = math.ceil(g.k / c.channels) * tiles
        wanted = splits or max(1, gpu_of(arch).processors // programs)
        each = math.ceil(blocks / min(wanted, blocks))
        count = math.ceil(blocks / each)
        parts = None if grad_pointwise is None else partials(grad_pointwise, count)
        sizes, constants = arguments(problem, c, g.n, stores=False)
        backward_kernel[(programs * count,)](
            grad_output, input, depthwise_weight, pointwise_weight, depthwise_bias, intermediate, grad_intermediate,
            parts, sizes, each, FIRST=depthwise_activation, SLOPE=negative_slope, PRECISION="ieee", **constants,
        )  # fmt: skip
        if grad_pointwise is not None and parts is not None:
            sum_partials(parts, grad_pointwise, count)
