"""int8_conv in Triton: conv/forward.py's implicit GEMM over channels_last bytes, summed in int32 by tensor cores.

Padding stands for the input's zero point: it is loaded as that, so that what the zero point adds to a sum is the same
for every pixel.
"""

import triton
import triton.language as tl

from ..common.geometry import sizes_of, tap_distance, window_start
from ..common.tiles import channels_and_taps, filter_offset, image_offset, inside, site
from ..common.types import indices, load_filled
from ..int8.epilogue import store_tile
from ..int8.pack import signed


@triton.jit
def load_image(pointers, exists, fill, MASKED: tl.constexpr, FILLED: tl.constexpr):
    """The bytes at the pointers, `fill` where there are none."""
    if MASKED and FILLED:
        return load_filled(pointers, exists, fill)
    elif MASKED:
        return tl.load(pointers, mask=exists, other=0)
    else:
        return tl.load(pointers)


@triton.jit
def forward_kernel(
    input,
    weight,
    numbers,
    output,
    fill,
    geometry,
    R: tl.constexpr,
    S: tl.constexpr,
    UNIT_C: tl.constexpr,
    UNIT_K: tl.constexpr,
    FLAT: tl.constexpr,
    PADDED: tl.constexpr,
    FILLED: tl.constexpr,
    MASKED: tl.constexpr,
    PIECES: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of BLOCK_M pixels x BLOCK_N filters of a group of `channels` and `filters`.

    A step of the loop takes BLOCK_K of the channels_and_taps. PADDED: a window may leave the image; FILLED: `fill`,
    what stands there, is not 0; MASKED: BLOCK_K does not divide the reduction. Channels count UNIT_C, filters UNIT_K.
    """
    TAPS: tl.constexpr = R * S
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, UNIT_C, UNIT_K, WIDE)
    # Tiles of filters run first: they share their image tile.
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(filters, BLOCK_N)
    tiles_m = tl.cdiv(N * P * Q, BLOCK_M)
    group = pid // tiles_n // tiles_m
    m = indices(pid // tiles_n % tiles_m, BLOCK_M, WIDE)[:, None]
    first = pid % tiles_n * BLOCK_N
    # Pixels and filters past the last are the last again, so that loads need no mask for them: they are not stored.
    n, p, q = site(tl.minimum(m, N * P * Q - 1), P, Q)
    column = tl.minimum(first + tl.arange(0, BLOCK_N)[None, :], filters - 1)
    h, w = window_start(p, q, window)

    at_input = input + image_offset(n, h, w, group * channels, H, W, C, True)
    at_weight = weight + filter_offset(group * filters + column, 0, 0, channels, TAPS, True)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    steps = tl.cdiv(FLAT * TAPS, BLOCK_K) if FLAT else tl.cdiv(channels, BLOCK_K) * TAPS
    for step in range(steps):
        c, c_exists, tap, r, s = channels_and_taps(step, channels, S, TAPS, BLOCK_K, FLAT, True, WIDE)
        dh, dw = tap_distance(r, s, window)
        exists = c_exists[None, :]
        if PADDED:
            exists = exists & inside(h + dh, w + dw, H, W)
        at = at_input + image_offset(0, dh, dw, c[None, :], H, W, C, True)
        x = load_image(at, exists, fill, MASKED or PADDED, FILLED)
        at = at_weight + filter_offset(0, c, tap, channels, TAPS, True)[:, None]
        f = load_image(at, c_exists[:, None], 0, MASKED, False)
        total = tl.dot(signed(x), f, total, out_dtype=tl.int32)
    exists = m < N * P * Q
    store_tile(output, m * K, total, numbers, m, first, group * filters, filters, exists, PIECES, PARTS)
