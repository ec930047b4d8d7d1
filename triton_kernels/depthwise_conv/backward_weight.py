"""depthwise_conv2d's gradient for the filters in Triton:

    dw[k, r, s] = sum over n, p, q of dy[n, k, p, q] x[n, k / m, p u - pad + r d, q v - pad + s e]

with strides u, v, dilations d, e and m filters a channel. A lane walks over patches of dy, keeps a sum for each tap in
registers and reads dy and the image under it once for all of them, or, where the taps are many, for a band of their
rows. Ranges of patches are summed by different programs into a workspace, which partials.py adds in order: no atomics,
the same bits on every run.
"""

import triton
import triton.language as tl

from ..common.sums import sum_along
from ..common.tiles import pixel_axis
from ..common.types import accumulator, along, indices, narrow
from .patch import column_of, read_at, read_row, reads, replaced, sizes_of_patches, step, tap_of, zeros


@triton.jit
def masked(columns, exists):
    """Zeros where a window does not exist: the zeros that stand for its dy would make NaN of an infinity."""
    found = ()
    for x in tl.static_range(len(columns)):
        found += (tl.where(exists, columns[x], 0.0),)
    return found


@triton.jit
def correlate(
    totals, FIRST: tl.constexpr, columns, grads, GRAD: tl.constexpr, left, LEFT: tl.constexpr, AXIS: tl.constexpr
):
    """Adds the products of an image row with the row of the patch that starts at GRAD to the filter row at FIRST. Of
    the row's windows `left` exist; the first LEFT always do."""
    TAPS: tl.constexpr = AXIS.taps
    PATCH: tl.constexpr = AXIS.patch
    for q in tl.static_range(PATCH):
        dy = grads[GRAD + q].to(totals[0].dtype)
        for s in tl.static_range(TAPS):
            x = columns[column_of(AXIS, q, s)].to(totals[0].dtype)
            if q >= LEFT:
                x = tl.where(q < left, x, 0.0)
            totals = replaced(totals, FIRST + s, totals[FIRST + s] + dy * x)
    return totals


@triton.jit
def backward_weight_kernel(
    grad_output,
    image,
    partials,
    sizes,
    steps,
    elements,
    R: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GRAD_COLUMNS: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    UNIT: tl.constexpr,
    LEFT_ROWS: tl.constexpr,
    LEFT_COLUMNS: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """A tile of filters x lanes, a band of ROWS.taps filter rows, `steps` steps of a patch for each lane.

    GRAD_COLUMNS reads the patch itself. The last patches of dy have LEFT_ROWS rows and LEFT_COLUMNS columns. The
    filters' `elements` repeat in `partials` for every range of patches.
    """
    N, C, H, W, K, P, Q = sizes_of_patches(sizes, UNIT, COLUMNS.chunk, GRAD_COLUMNS.chunk, WIDE)
    LANES: tl.constexpr = A if NHWC else B
    FILTERS: tl.constexpr = B if NHWC else A
    AXIS: tl.constexpr = pixel_axis(NHWC)
    BAND: tl.constexpr = ROWS.taps
    BANDS: tl.constexpr = (R + BAND - 1) // BAND
    DILATION: tl.constexpr = ROWS.dilation
    S: tl.constexpr = COLUMNS.taps
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    # Bands run first: they share dy and most of the image.
    pid = tl.program_id(0)
    first = pid % BANDS * BAND
    filter = indices(pid // BANDS, FILTERS, WIDE)
    split = tl.program_id(1)
    k = along(filter, 1 - AXIS)
    rows, columns = tl.cdiv(P, TP), tl.cdiv(Q, TQ)
    patches = rows * columns
    totals = zeros(BAND * S, A, B, accumulator(image.dtype.element_ty))
    for place in range(split * steps, tl.minimum((split + 1) * steps, tl.cdiv(N * patches, LANES))):
        index = along(indices(place, LANES, WIDE), AXIS)
        n, i, j = index // patches, index % patches // columns, index % columns
        exists = (index < N * patches) & (k < K)
        grads = ()
        for o in tl.static_range(TP):
            grads += read_row(grad_output, None, n, i * TP + o, j * TQ, k, exists, P, Q, K, GRAD_COLUMNS, NHWC)
        for a in tl.static_range(reads(ROWS)):
            h = i * step(ROWS) + first * DILATION + read_at(ROWS, a)
            xs = read_row(image, None, n, h, j * step(COLUMNS), k // MULTIPLIER, exists, H, W, C, COLUMNS, NHWC)
            for o in tl.static_range(TP):
                if tap_of(ROWS, o, a) >= 0:
                    seen = masked(xs, i * TP + o < P) if o >= LEFT_ROWS else xs
                    totals = correlate(
                        totals, tap_of(ROWS, o, a) * S, seen, grads, o * TQ, Q - j * TQ, LEFT_COLUMNS, COLUMNS
                    )  # fmt: skip

    at = partials + split * elements + filter * (R * S) + first * S
    for t in tl.static_range(BAND * S):
        total = narrow(sum_along(totals[t], AXIS), partials.dtype.element_ty)
        tl.store(at + t, total, mask=(filter < K) & (first + t // S < R))
