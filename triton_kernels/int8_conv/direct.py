"""int8_conv of narrow groups in Triton, where a matrix product would be mostly padding: multiply and add, element by
element, in int32. Tensors are channels_last; the zero point is taken from each byte, so that padding adds nothing.

direct_kernel serves any groups, a tap at a time. depthwise_kernel, for groups of one channel with any number of
filters, walks over patches of pixels as depthwise_conv/sweep.py does: what the patch's windows share is read once.
"""

import triton
import triton.language as tl

from ..common.geometry import sizes_of, tap_distance, window_start
from ..common.tiles import filter_offset, image_offset, inside, site
from ..common.types import indices
from ..depthwise_conv.patch import (
    chunk_at,
    chunks,
    column_of,
    first_read,
    first_tap,
    lanes,
    meetings,
    next_read,
    next_tap,
    read_at,
    reads,
    replaced,
    sizes_of_patches,
    step,
    tap_of,
    zeros,
)
from ..int8.epilogue import store


@triton.jit
def load_shifted(pointers, exists, zero_point):
    """Bytes less the zero point; 0 where there are none."""
    x = tl.load(pointers, mask=exists, other=0).to(tl.int32)
    if zero_point is not None:
        x = tl.where(exists, x - tl.cast(zero_point, tl.int32), 0)
    return x


@triton.jit
def direct_kernel(
    input,
    weight,
    zero_point,
    numbers,
    output,
    geometry,
    R: tl.constexpr,
    S: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tile of BLOCK_M pixels x BLOCK_N filters, of whichever groups."""
    TAPS: tl.constexpr = R * S
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, 1, 1, WIDE)
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(K, BLOCK_N)
    m = indices(pid // tiles_n, BLOCK_M, WIDE)[:, None]
    k = indices(pid % tiles_n, BLOCK_N, WIDE)[None, :]
    m_exists, k_exists = m < N * P * Q, k < K
    n, p, q = site(m, P, Q)
    h, w = window_start(p, q, window)
    first = k // filters * channels
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for c in range(channels):
        for tap in range(TAPS):
            dh, dw = tap_distance(tap // S, tap % S, window)
            exists = m_exists & k_exists & inside(h + dh, w + dw, H, W)
            x = load_shifted(input + image_offset(n, h + dh, w + dw, first + c, H, W, C, True), exists, zero_point)
            f = load_shifted(weight + filter_offset(k, c, tap, channels, TAPS, True), k_exists, None)
            total += x * f
    store(output, m * K + k, total, numbers, m, k, m_exists, k_exists, PARTS)


@triton.jit
def read_shifted_row(image, n, h, w, c, exists, H, W, C, zero_point, AXIS: tl.constexpr):
    """The columns that AXIS reads in the row h from the column w on, a tuple of tiles; zeros outside of the image."""
    row_exists = exists & ((h >= 0) & (h < H))
    at_row = image + image_offset(n, h, w, c, H, W, C, True)
    columns = ()
    for i in tl.static_range(chunks(AXIS)):
        column = w + chunk_at(AXIS, i)
        columns += (
            load_shifted(at_row + chunk_at(AXIS, i) * C, row_exists & ((column >= 0) & (column < W)), zero_point),
        )
    return columns


@triton.jit
def add_row(totals, FIRST: tl.constexpr, columns, at_filter, c_exists, AXIS: tl.constexpr):
    """Adds the products of one image row with one filter row to the totals of the patch row that starts at FIRST."""
    TAPS: tl.constexpr = AXIS.taps
    PATCH: tl.constexpr = AXIS.patch
    for s in tl.static_range(TAPS):
        f = load_shifted(at_filter + s, c_exists, None)
        for q in tl.static_range(PATCH):
            x = columns[column_of(AXIS, q, s)]
            totals = replaced(totals, FIRST + q, totals[FIRST + q] + x * f)
    return totals


@triton.jit
def depthwise_kernel(
    image,
    weight,
    zero_point,
    numbers,
    output,
    sizes,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    UNROLLED: tl.constexpr,
    UNIT: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """One tile of A x B lanes, each a patch of one filter's outputs; ROWS and COLUMNS are its two Axis. UNROLLED reads
    each image row once, for all patch rows that it meets; else these are swept one after the other, in a loop over
    their taps. Channels and filters count UNITs."""
    N, C, H, W, K, P, Q = sizes_of_patches(sizes, UNIT, COLUMNS.chunk, 1, WIDE)
    TAPS: tl.constexpr = ROWS.taps * COLUMNS.taps
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    n, i, j, k, exists = lanes(N, K, tl.cdiv(P, TP), tl.cdiv(Q, TQ), True, A, B, WIDE)
    h, w, c, k_exists = i * step(ROWS), j * step(COLUMNS), k // MULTIPLIER, k < K
    at_filter = weight + k * TAPS
    totals = zeros(TP * TQ, A, B, tl.int32)
    if UNROLLED:
        for a in tl.static_range(reads(ROWS)):
            row = h + read_at(ROWS, a)
            columns = read_shifted_row(image, n, row, w, c, exists, H, W, C, zero_point, COLUMNS)
            for o in tl.static_range(TP):
                if tap_of(ROWS, o, a) >= 0:
                    at_row = at_filter + tap_of(ROWS, o, a) * COLUMNS.taps
                    totals = add_row(totals, o * TQ, columns, at_row, k_exists, COLUMNS)
    else:
        for o in tl.static_range(TP):
            for t in range(meetings(ROWS, o)):
                row = h + first_read(ROWS, o) + t * next_read(ROWS)
                columns = read_shifted_row(image, n, row, w, c, exists, H, W, C, zero_point, COLUMNS)
                at_row = at_filter + (first_tap(ROWS, o) + t * next_tap(ROWS)) * COLUMNS.taps
                totals = add_row(totals, o * TQ, columns, at_row, k_exists, COLUMNS)
    for o in tl.static_range(TP):
        for q in tl.static_range(TQ):
            p_exists = exists & (i * TP + o < P) & (j * TQ + q < Q)
            at = image_offset(n, i * TP + o, j * TQ + q, k, P, Q, K, True)
            store(output, at, totals[o * TQ + q], numbers, 0, k, p_exists, k_exists, PARTS)
