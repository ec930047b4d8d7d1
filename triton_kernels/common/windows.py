"""The windows of pooling: where they lie in the input, and what of a window its elements stand inside."""

import triton
import triton.language as tl

from cnnkernels.geometry import PoolGeometry

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
