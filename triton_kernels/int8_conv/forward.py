"""int8_conv in Triton: conv/forward.py's implicit GEMM over channels_last bytes, summed in int32 by tensor cores.

Padding stands for the input's zero point: it is loaded as that, so that what the zero point adds to a sum is the same
for every pixel.
"""

import triton
import triton.language as tl

from ..common.tiles import filter_offset, flat_place, image_offset, inside, site
from ..common.types import as_wide, indices, load_filled
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
    N,
    C,
    H,
    W,
    K,
    P,
    Q,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    channels,
    filters,
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

    A step of the loop takes BLOCK_K channels of one tap, or, where FLAT gives a group's few channels, BLOCK_K places
    in the order of the filter's memory, whatever their tap. PADDED: a window may leave the image; FILLED: `fill`, what
    stands there, is not 0; MASKED: BLOCK_K does not divide the reduction. C and `channels` count UNIT_C, K and
    `filters` UNIT_K.
    """
    TAPS: tl.constexpr = R * S
    N, C, H, W, K, P, Q = as_wide((N, C, H, W, K, P, Q), WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = as_wide(
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), WIDE
    )
    channels, filters = as_wide((channels, filters), WIDE)
    C, channels, K, filters = C * UNIT_C, channels * UNIT_C, K * UNIT_K, filters * UNIT_K
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
    h = p * stride_h - pad_h
    w = q * stride_w - pad_w

    at_input = input + image_offset(n, h, w, group * channels, H, W, C, True)
    at_weight = weight + filter_offset(group * filters + column, 0, 0, channels, TAPS, True)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    steps = tl.cdiv(FLAT * TAPS, BLOCK_K) if FLAT else tl.cdiv(channels, BLOCK_K) * TAPS
    for step in range(steps):
        if FLAT:
            c, tap = flat_place(indices(step, BLOCK_K, WIDE), FLAT, TAPS, True)
            c_exists = tap < TAPS
            r, s = (tap // S)[None, :], (tap % S)[None, :]
        else:
            tap = step % TAPS
            c = indices(step // TAPS, BLOCK_K, WIDE)
            c_exists = c < channels
            r, s = tap // S, tap % S
        dh, dw = r * dilation_h, s * dilation_w
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
