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
from ..depthwise_conv.patch import lanes, load_shifted, sizes_of_patches, step, zeros
from ..depthwise_conv.sweep import add_taps
from ..int8.epilogue import store


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
    """One tile of A x B lanes, each a patch of one filter's outputs; ROWS and COLUMNS are its two Axis."""
    N, C, H, W, K, P, Q = sizes_of_patches(sizes, UNIT, COLUMNS.chunk, 1, WIDE)
    TAPS: tl.constexpr = ROWS.taps * COLUMNS.taps
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    n, i, j, k, exists = lanes(N, K, tl.cdiv(P, TP), tl.cdiv(Q, TQ), True, A, B, WIDE)
    h, w, c, k_exists = i * step(ROWS), j * step(COLUMNS), k // MULTIPLIER, k < K
    totals = add_taps(
        zeros(TP * TQ, A, B, tl.int32), image, zero_point, weight + k * TAPS, n, h, w, c, exists, k_exists, C, H, W,
        ROWS, COLUMNS, UNROLLED, True,
    )  # fmt: skip
    for o in tl.static_range(TP):
        for q in tl.static_range(TQ):
            p_exists = exists & (i * TP + o < P) & (j * TQ + q < Q)
            at = image_offset(n, i * TP + o, j * TQ + q, k, P, Q, K, True)
            store(output, at, totals[o * TQ + q], numbers, 0, k, p_exists, k_exists, PARTS)
