"""conv2d's forward in Triton:

    y[n, p, q, k] = b[k] + sum over r, s, c of x[n, p u + r d - pad, q v + s e - pad, c] w[k, r, s, c]

with strides u, v and dilations d, e: an implicit GEMM of M = N P Q pixels, K filters of a group and a reduction over
C R S, the group being a dimension of the grid. The order of a sum is the loop's, which the layer alone decides: a
sample's bits do not depend on its batch.
"""

import triton
import triton.language as tl

from ..common.epilogue import finish
from ..common.tiles import filter_offset, flat_place, image_offset, inside, pixel_axis, product, repeated, site
from ..common.types import accumulator, along, as_wide, indices, narrow


@triton.jit
def forward_kernel(
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    output,
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
    UNIT: tl.constexpr,
    FLAT: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MODE: tl.constexpr = 0,
):
    """One tile of BLOCK_M pixels x BLOCK_N filters of a group of `channels` and `filters`.

    A step of the loop takes BLOCK_K channels of one tap, or, where FLAT gives a group's few channels, BLOCK_K places
    in the order of the filter's memory, whatever their tap. C, K, `channels` and `filters` count UNITs. MODE is the
    padding's: outside the image lie zeros (0) or the pixels that are `repeated` there.
    """
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q = as_wide((N, C, H, W, K, P, Q), WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = as_wide(
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), WIDE
    )
    channels, filters = as_wide((channels, filters), WIDE)
    C, K, channels, filters = C * UNIT, K * UNIT, channels * UNIT, filters * UNIT
    # Tiles of filters run first: they share their image tile.
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(filters, BLOCK_N)
    tiles_m = tl.cdiv(N * P * Q, BLOCK_M)
    group = pid // tiles_n // tiles_m
    m = along(indices(pid // tiles_n % tiles_m, BLOCK_M, WIDE), A)
    column = along(indices(pid % tiles_n, BLOCK_N, WIDE), 1 - A)
    m_exists = m < N * P * Q
    k_exists = column < filters
    n, p, q = site(m, P, Q)
    h = p * stride_h - pad_h
    w = q * stride_w - pad_w
    k = group * filters + column

    at_input = input + image_offset(n, h, w, group * channels, H, W, C, NHWC)
    at_weight = weight + filter_offset(k, 0, 0, channels, TAPS, NHWC)
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(input.dtype.element_ty))
    steps = tl.cdiv(FLAT * TAPS, BLOCK_K) if FLAT else tl.cdiv(channels, BLOCK_K) * TAPS
    for step in range(steps):
        if FLAT:
            c, tap = flat_place(indices(step, BLOCK_K, WIDE), FLAT, TAPS, NHWC)
            c_exists = (c < FLAT) & (tap < TAPS)
            r, s = along(tap // S, 1 - A), along(tap % S, 1 - A)
        else:
            tap = step % TAPS
            c = indices(step // TAPS, BLOCK_K, WIDE)
            c_exists = c < channels
            r, s = tap // S, tap % S
        dh, dw = r * dilation_h, s * dilation_w
        exists = m_exists
        if MODE == 0:
            exists = exists & inside(h + dh, w + dw, H, W)
        else:
            dh, dw = repeated(h + dh, H, MODE) - h, repeated(w + dw, W, MODE) - w
        exists = exists & along(c_exists, 1 - A)
        x = tl.load(at_input + image_offset(0, dh, dw, along(c, 1 - A), H, W, C, NHWC), mask=exists, other=0.0)
        exists = k_exists & along(c_exists, A)
        f = tl.load(at_weight + along(filter_offset(0, c, tap, channels, TAPS, NHWC), A), mask=exists, other=0.0)
        total = product(x, f, total, NHWC, PRECISION)

    at_output = image_offset(n, p, q, k, P, Q, K, NHWC)
    exists = m_exists & k_exists
    total = finish(total, bias, scale, shift, residual, k, at_output, k_exists, exists, ACTIVATION, SLOPE)
    tl.store(output + at_output, narrow(total, output.dtype.element_ty), mask=exists)
