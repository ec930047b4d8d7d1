"""Pooling's windows: what kernels take of their geometry, one tuple, and the walk over a window that a reduction takes.

A reduction is a function REDUCE(state, place, pointers, inside): what becomes of a state by the elements that stand, in
every window of a tile, at one place r * S + s, where that is `inside` the input.
"""

import triton
import triton.language as tl

from ...geometry import PoolGeometry
from .geometry import tap_distance
from .sites import Work, offset
from .types import as_wide

# Loops of up to this many steps are unrolled, so that their loads are in flight together.
UNROLL = 16


@triton.jit
def first_place(start, dilation, places):
    """The first place of a window that stands at or after the input's start (the last one if there is none)."""
    return tl.minimum(tl.where(start < 0, (dilation - 1 - start) // dilation, 0), places - 1)


@triton.jit
def span(start, size, dilation, places):
    """The places, from the first to one past the last, that stand inside the input for any window of the tile."""
    end = tl.minimum((size - 1 - start) // dilation + 1, places)
    return tl.min(first_place(start, dilation, places)), tl.max(tl.where(start < size, end, 0))


@triton.jit
def sizes_of(geometry, WIDE: tl.constexpr):
    """images, C, H, W, P, Q, and the window: strides, padding and dilations."""
    images, C, H, W, P, Q = geometry[:6]
    return images, C, H, W, P, Q, as_wide(geometry[6:], WIDE)


@triton.jit
def reduce_place(
    state, r, s, input, image, h, w, channel, exists, H, W, C, window, S: tl.constexpr, REDUCE: tl.constexpr
):  # fmt: skip
    """The state after the place (r, s) of the windows that start at (h, w)."""
    dh, dw = tap_distance(r, s, window)
    row, column = h + dh, w + dw
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W) & exists
    return REDUCE(state, tl.cast(r * S + s, tl.int32), input + offset(image, row, column, channel, H, W, C), inside)


@triton.jit
def reduce_window(
    state, input, image, h, w, channel, exists, H, W, C, window,
    R: tl.constexpr, S: tl.constexpr, UNROLLED: tl.constexpr, REDUCE: tl.constexpr,
):  # fmt: skip
    """The state after all places of the windows that start at (h, w), in ascending order."""
    if UNROLLED:
        for at in tl.static_range(R * S):
            state = reduce_place(
                state, at // S, at % S, input, image, h, w, channel, exists, H, W, C, window, S, REDUCE
            )
    else:
        dilation_h, dilation_w = window[4:]
        r_begin, r_end = span(h, H, dilation_h, R)
        s_begin, s_end = span(w, W, dilation_w, S)
        for r in range(r_begin, r_end):
            for s in range(s_begin, s_end):
                state = reduce_place(state, r, s, input, image, h, w, channel, exists, H, W, C, window, S, REDUCE)
    return state


def arguments(part: Work, g: PoolGeometry) -> tuple[int, ...]:
    """A kernel's `geometry`, of a slice of the batch."""
    return (part.images, part.channels, g.h, g.w, g.p, g.q, *g.steps)


def within_reach(geometry: PoolGeometry) -> PoolGeometry:
    """Strides and dilations that step over all of the input, cut to the shortest that does: places and windows beyond
    the first fall outside either way, and no product of coordinates overflows."""
    reach_h, reach_w = geometry.h + geometry.pad_h, geometry.w + geometry.pad_w
    return geometry._replace(
        stride_h=min(geometry.stride_h, reach_h),
        stride_w=min(geometry.stride_w, reach_w),
        dilation_h=min(geometry.dilation_h, reach_h),
        dilation_w=min(geometry.dilation_w, reach_w),
    )


def small(g: PoolGeometry) -> bool:
    """Does whatever is computed of coordinates stay below 2^31? The backward multiplies two numbers below a stride."""
    rows = g.h + g.pad_h + g.p * g.stride_h + g.r * g.dilation_h
    columns = g.w + g.pad_w + g.q * g.stride_w + g.s * g.dilation_w
    return max(rows, columns, g.stride_h**2, g.stride_w**2) < 2**31
