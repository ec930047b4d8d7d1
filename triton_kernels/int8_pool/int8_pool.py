"""int8_max_pool and int8_avg_pool in Triton: a program a tile of the output (common/sites.py), channels side by
side.

The semantics are csrc/int8_pool's, and so are the bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...geometry import Layout, PoolGeometry
from ..common.geometry import window_start
from ..common.sites import offset, tile, work
from ..common.target import on
from ..common.types import INTERPRETED, load_filled
from ..common.windows import UNROLL, arguments, reduce_window, sizes_of, small, within_reach
from ..int8.rounding import quantized

# Elements of a program: 16 a thread, or as few as leave none of a large GPU's processors without a program. In Triton's
# interpreter a program costs more than its elements do.
TILES = (16384,) if INTERPRETED.value else (2048, 1024, 512)
PROGRAMS = 264


@triton.jit
def keep_largest(state, place, pointers, inside):
    """(largest, the least there is): int8 has the latter outside of the input, as a number of the launch."""
    largest, least = state
    if pointers.dtype.element_ty == tl.int8:
        x = load_filled(pointers, inside, least)
    else:
        x = tl.load(pointers, mask=inside, other=0)
    return tl.maximum(largest, x.to(tl.int32)), least


@triton.jit
def add_up(total, place, pointers, inside):
    return total + tl.load(pointers, mask=inside, other=0).to(tl.int32)


@triton.jit
def int8_pool_kernel(
    input,
    output,
    geometry,
    least,
    zero_point,
    divisor,
    R: tl.constexpr,
    S: tl.constexpr,
    MAXIMUM: tl.constexpr,
    LEAST: tl.constexpr,
    INCLUDE_PAD: tl.constexpr,
    OVERRIDE: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The maximum of each window, from `least` on, which is LEAST; or its mean."""
    images, C, H, W, P, Q, window = sizes_of(geometry, WIDE)
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    h, w = window_start(p, q, window)
    total = tl.zeros([A, B], tl.int32)
    if MAXIMUM:
        total, least = reduce_window(
            (total + least, least),
            input, image, h, w, channel, exists, H, W, C, window, R, S, UNROLLED, keep_largest,
        )  # fmt: skip
    else:
        total = reduce_window(
            total, input, image, h, w, channel, exists, H, W, C, window, R, S, UNROLLED, add_up
        )  # fmt: skip
        shift = tl.zeros([1, 1], tl.int32) + zero_point
        h_end = tl.minimum(h + R, H + window[2])
        w_end = tl.minimum(w + S, W + window[3])
        inside = (tl.minimum(h_end, H) - tl.maximum(h, 0)) * (tl.minimum(w_end, W) - tl.maximum(w, 0))
        if OVERRIDE:
            by = tl.zeros([1, 1], tl.int32) + divisor
        elif INCLUDE_PAD:
            by = (h_end - h) * (w_end - w)
        else:
            by = inside
        total = (total - (inside * shift).to(tl.int32)).to(tl.float32)
        mean = tl.math.div_rn(total, tl.zeros([A, B], tl.float32) + by.to(tl.float32))
        total = quantized(mean, 1.0, shift, LEAST)
    tl.store(output + offset(image, p, q, channel, P, Q, C), total.to(output.dtype.element_ty), mask=exists)


def _pool(
    input: Tensor,
    output: Tensor,
    geometry: PoolGeometry,
    maximum: bool,
    zero_point: int = 0,
    count_include_pad: bool = False,
    divisor_override: int | None = None,
) -> None:
    g = within_reach(geometry)
    least = torch.iinfo(input.dtype).min
    elements = next((size for size in TILES if output.numel() >= size * PROGRAMS), TILES[-1])
    with on(input):
        for part in work((input, output), Layout.NHWC, g.p, g.q, small(g), elements):
            int8_pool_kernel[(part.programs,)](
                *part.tensors, arguments(part, g), least, zero_point,
                divisor_override or 0, R=g.r, S=g.s, MAXIMUM=maximum, LEAST=least, INCLUDE_PAD=count_include_pad,
                OVERRIDE=divisor_override is not None, UNROLLED=g.r * g.s <= UNROLL, enable_fp_fusion=False,
                **part.constants,
            )  # fmt: skip


def int8_max_pool(input: Tensor, output: Tensor, geometry: PoolGeometry) -> None:
    """Writes the largest of each window's places inside the input."""
    _pool(input, output, geometry, True)


def int8_avg_pool(
    input: Tensor,
    output: Tensor,
    geometry: PoolGeometry,
    zero_point: int,
    count_include_pad: bool,
    divisor_override: int | None,
) -> None:
    """Writes clamp(rint(sum of (x - zero_point) / divisor) + zero_point) of each window."""
    _pool(input, output, geometry, False, zero_point, count_include_pad, divisor_override)
