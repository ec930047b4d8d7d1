"""depthwise_conv2d's forward and its gradient for the input in Triton:

    y[n, k, p, q]  = b[k] + sum over r, s of x[n, k / m, p u + r d - pad, q v + s e - pad] w[k, r, s]
    dx[n, c, h, w] = sum over k of c's m filters, r, s of dy[n, k, p, q] w[k, r, s],
                     where p u + r d - pad = h, q v + s e - pad = w

with strides u, v and dilations d, e. Both are one sweep over the image that is read, which differs in which of its
elements meets a place written, and by which tap (patch.py, Axis).

An output's products are added from the first image row to the last, whatever the patch: neither the batch nor the
configuration has a part in its bits.
"""

import triton
import triton.language as tl

from ..common.tiles import image_offset
from ..common.types import accumulator, as_wide, narrow
from .patch import (
    column_of,
    first_read,
    first_tap,
    lanes,
    meetings,
    next_read,
    next_tap,
    packed,
    read_at,
    read_row,
    reads,
    replaced,
    step,
    tap_of,
    zeros,
)


@triton.jit
def add_row(totals, FIRST: tl.constexpr, columns, at_filter, c_exists, AXIS: tl.constexpr):
    """Adds the products of one image row with one filter row to the totals of the patch row that starts at FIRST."""
    TAPS: tl.constexpr = AXIS.taps
    PATCH: tl.constexpr = AXIS.patch
    for s in tl.static_range(TAPS):
        f = tl.load(at_filter + s, mask=c_exists, other=0.0).to(totals[0].dtype)
        for q in tl.static_range(PATCH):
            if column_of(AXIS, q, s) >= 0:
                x = columns[column_of(AXIS, q, s)].to(totals[0].dtype)
                totals = replaced(totals, FIRST + q, totals[FIRST + q] + x * f)
    return totals


@triton.jit
def add_taps(
    totals,
    image,
    at_filter,
    n,
    h,
    w,
    c,
    exists,
    filter_exists,
    C,
    H,
    W,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
):
    """Adds the products of a channel's image with one filter to the totals of patches that read from (h, w) on."""
    S: tl.constexpr = COLUMNS.taps
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    if UNROLLED:
        for a in tl.static_range(reads(ROWS)):
            columns = read_row(image, n, h + read_at(ROWS, a), w, c, exists, H, W, C, COLUMNS, NHWC)
            for o in tl.static_range(TP):
                if tap_of(ROWS, o, a) >= 0:
                    at_row = at_filter + tap_of(ROWS, o, a) * S
                    totals = add_row(totals, o * TQ, columns, at_row, filter_exists, COLUMNS)
    else:
        for o in tl.static_range(TP):
            if meetings(ROWS, o) > 0:
                for t in range(meetings(ROWS, o)):
                    row = h + first_read(ROWS, o) + t * next_read(ROWS)
                    columns = read_row(image, n, row, w, c, exists, H, W, C, COLUMNS, NHWC)
                    at_row = at_filter + (first_tap(ROWS, o) + t * next_tap(ROWS)) * S
                    totals = add_row(totals, o * TQ, columns, at_row, filter_exists, COLUMNS)
    return totals


@triton.jit
def add_bias(totals, bias, c, c_exists):
    if bias is not None:
        b = tl.load(bias + c, mask=c_exists, other=0.0).to(totals[0].dtype)
        for o in tl.static_range(len(totals)):
            totals = replaced(totals, o, totals[o] + b)
    return totals


@triton.jit
def write_patch(
    written,
    totals,
    n,
    row,
    column,
    c,
    exists,
    C,
    H,
    W,
    TP: tl.constexpr,
    TQ: tl.constexpr,
    STORE: tl.constexpr,
    NHWC: tl.constexpr,
):
    """Rounds the totals of patches that start at (row, column) and stores them, STORE columns at once."""
    for o in tl.static_range(TP):
        for q in tl.static_range(0, TQ, STORE):
            inside = exists & (row + o < H) & (column + q < W)
            at = written + image_offset(n, row + o, column + q, c, H, W, C, NHWC)
            if STORE == 1:
                tl.store(at, narrow(totals[o * TQ + q], written.dtype.element_ty), mask=inside)
            else:
                at = at[:, :, None] + tl.arange(0, STORE)[None, None, :]
                y = narrow(packed(totals, o * TQ + q, 1, STORE), written.dtype.element_ty)
                tl.store(at, y, mask=inside[:, :, None])


@triton.jit
def sweep_kernel(
    image,
    weight,
    bias,
    written,
    N,
    C_IN,
    H_IN,
    W_IN,
    C,
    H,
    W,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    UNROLLED: tl.constexpr,
    UNIT: tl.constexpr,
    STORE: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """One tile of A x B lanes, each a patch of `written` [N, C, H, W].

    ROWS and COLUMNS are the patch's two Axis. UNROLLED reads each image row once, for all patch rows that it meets;
    else these are swept one after the other, in a loop over their taps. Channels count UNITs, W_IN chunks and W
    STOREs of columns.
    """
    N, C_IN, H_IN, W_IN, C, H, W = as_wide((N, C_IN, H_IN, W_IN, C, H, W), WIDE)
    C_IN, C, W_IN, W = C_IN * UNIT, C * UNIT, W_IN * COLUMNS.chunk, W * STORE
    BACKWARD: tl.constexpr = ROWS.backward
    TAPS: tl.constexpr = ROWS.taps * COLUMNS.taps
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    n, i, j, c, exists = lanes(N, C, tl.cdiv(H, TP), tl.cdiv(W, TQ), NHWC, A, B, WIDE)
    h, w = i * step(ROWS), j * step(COLUMNS)
    totals = zeros(TP * TQ, A, B, accumulator(image.dtype.element_ty))
    for m in range(MULTIPLIER if BACKWARD else 1):
        filter = c * MULTIPLIER + m if BACKWARD else c
        source = filter if BACKWARD else c // MULTIPLIER
        totals = add_taps(
            totals, image, weight + filter * TAPS, n, h, w, source, exists, c < C, C_IN, H_IN, W_IN,
            ROWS, COLUMNS, UNROLLED, NHWC,
        )  # fmt: skip
    totals = add_bias(totals, bias, c, c < C)
    write_patch(written, totals, n, i * TP, j * TQ, c, exists, C, H, W, TP, TQ, STORE, NHWC)
