"""conv2d's forward in Triton:

    y[n, p, q, k] = b[k] + sum over r, s, c of x[n, p u + r d - pad, q v + s e - pad, c] w[k, r, s, c]

with strides u, v and dilations d, e: an implicit GEMM of M = N P Q pixels, K filters of a group and a reduction over
C R S, the group being a dimension of the grid. The order of a sum is the loop's, which the layer alone decides: a
sample's bits do not depend on its batch.
"""

import triton
import triton.language as tl

from ..common.epilogue import finish
from ..common.geometry import sizes_of, tap_distance, window_start
from ..common.tiles import channels_and_taps, filter_offset, image_offset, inside, pixel_axis, product, repeated, site
from ..common.types import accumulator, along, indices, narrow


@triton.jit
def forward_kernel(
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    output,
    geometry,
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

    A step of the loop takes BLOCK_K of the channels_and_taps; channels and filters count UNITs. MODE is the padding's:
    outside the image lie zeros (0) or the pixels that are `repeated` there.
    """
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, UNIT, UNIT, WIDE)
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
    h, w = window_start(p, q, window)
    k = group * filters + column

    at_input = input + image_offset(n, h, w, group * channels, H, W, C, NHWC)
    at_weight = weight + filter_offset(k, 0, 0, channels, TAPS, NHWC)
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(input.dtype.element_ty))
    steps = tl.cdiv(FLAT * TAPS, BLOCK_K) if FLAT else tl.cdiv(channels, BLOCK_K) * TAPS
    for step in range(steps):
        c, c_exists, tap, r, s = channels_and_taps(step, channels, S, TAPS, BLOCK_K, FLAT, NHWC, WIDE)
        dh, dw = tap_distance(r, s, window)
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
