"""int8_max_pool and int8_avg_pool in Triton: a program a tile of the output (common/sites.py), channels side by
side.

The semantics are csrc/int8_pool's, and so are the bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cnnkernels.geometry import Layout, PoolGeometry

from ..common.sites import offset, tile, work
from ..common.target import on
from ..common.types import INTERPRETED, as_wide, load_filled
from ..common.windows import UNROLL, small, span, within_reach
from ..int8.rounding import quantized

# Elements of a program: 16 a thread, or as few as leave none of a large GPU's processors without a program. In Triton's
# interpreter a program costs more than its elements do.
TILES = (16384,) if INTERPRETED.value else (2048, 1024, 512)
PROGRAMS = 264


@triton.jit
def place(input, image, h, w, channel, exists, H, W, C, outside, FILLED: tl.constexpr):
    """The int32 number at a place; outside the input 0, or where FILLED `outside`."""
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & exists
    at = input + offset(image, h, w, channel, H, W, C)
    return (load_filled(at, inside, outside) if FILLED else tl.load(at, mask=inside, other=0)).to(tl.int32)


@triton.jit
def reduced(total, x, MAXIMUM: tl.constexpr):
    if MAXIMUM:
        return tl.maximum(total, x)
    else:
        return total + x


@triton.jit
def int8_pool_kernel(
    input,
    output,
    images,
    C,
    H,
    W,
    P,
    Q,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    outside,
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
    """The maximum of each window, or its mean; a place outside the input is `outside`, LEAST, to the one and 0 to the
    other."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = as_wide(
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), WIDE
    )
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    h = p * stride_h - pad_h
    w = q * stride_w - pad_w
    FILLED: tl.constexpr = MAXIMUM and LEAST != 0
    total = tl.zeros([A, B], tl.int32)
    if MAXIMUM:
        total += outside
    if UNROLLED:
        for at in tl.static_range(R * S):
            row, column = h + at // S * dilation_h, w + at % S * dilation_w
            x = place(input, image, row, column, channel, exists, H, W, C, outside, FILLED)
            total = reduced(total, x, MAXIMUM)
    else:
        r_begin, r_end = span(h, H, dilation_h, R)
        s_begin, s_end = span(w, W, dilation_w, S)
        for r in range(r_begin, r_end):
            for s in range(s_begin, s_end):
                row, column = h + r * dilation_h, w + s * dilation_w
                x = place(input, image, row, column, channel, exists, H, W, C, outside, FILLED)
                total = reduced(total, x, MAXIMUM)
    if not MAXIMUM:
        shift = tl.zeros([1, 1], tl.int32) + zero_point
        h_end = tl.minimum(h + R, H + pad_h)
        w_end = tl.minimum(w + S, W + pad_w)
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
                *part.tensors, part.images, part.channels, g.h, g.w, g.p, g.q, *g.steps, least, zero_point,
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
