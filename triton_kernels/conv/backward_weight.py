"""conv2d's gradients for the filters and the bias in Triton:

    dw[k, r, s, c] = sum over n, p, q of dy[n, p, q, k] x[n, p u + r d - pad, q v + s e - pad, c]
    db[k]          = sum over n, p, q of dy[n, p, q, k]

An implicit GEMM of M = K filters, C R S columns and a reduction over N P Q pixels. There are few tiles and a long
reduction, so programs share it: each sums a range of the pixels into a workspace, and a second kernel adds those
partial sums in their order. No atomics: the same bits on every run.
"""

import triton
import triton.language as tl

from ..common.geometry import sizes_of, tap_distance, window_start
from ..common.sums import sum_along
from ..common.tiles import channels_and_taps, filter_offset, image_offset, inside, multiply, pixel_axis, repeated, site
from ..common.types import accumulator, along, as_wide, indices, narrow


@triton.jit
def backward_weight_kernel(
    grad_output,
    input,
    partials,
    geometry,
    groups,
    steps,
    elements,
    R: tl.constexpr,
    S: tl.constexpr,
    UNIT: tl.constexpr,
    FLAT: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MODE: tl.constexpr = 0,
):
    """One tile of BLOCK_M filters of a group x BLOCK_N of its channels_and_taps, over `steps` steps of BLOCK_K pixels.

    The filters' `elements` repeat in `partials` for every range of pixels. Channels and filters count UNITs. MODE is
    the padding's, as the forward's.
    """
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, UNIT, UNIT, WIDE)
    (elements,) = as_wide((elements,), WIDE)
    # Ranges of pixels run last: programs at work together read the same images.
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(FLAT * TAPS, BLOCK_N) if FLAT else tl.cdiv(channels, BLOCK_N) * TAPS
    tile_n = pid % tiles_n
    pid = pid // tiles_n
    tiles_m = tl.cdiv(filters, BLOCK_M)
    row = indices(pid % tiles_m, BLOCK_M, WIDE)
    pid = pid // tiles_m
    group, split = pid % groups, pid // groups
    c, c_exists, tap, r, s = channels_and_taps(tile_n, channels, S, TAPS, BLOCK_N, FLAT, NHWC, WIDE)
    dh, dw = tap_distance(r, s, window)
    k = group * filters + row
    k_exists = row < filters

    at_grad = grad_output + image_offset(0, 0, 0, along(k, 1 - A), P, Q, K, NHWC)
    at_input = input + image_offset(0, 0, 0, along(group * channels + c, 1 - A), H, W, C, NHWC)
    total = tl.zeros((BLOCK_M, BLOCK_N), accumulator(input.dtype.element_ty))
    for step in range(split * steps, tl.minimum((split + 1) * steps, tl.cdiv(N * P * Q, BLOCK_K))):
        m = along(indices(step, BLOCK_K, WIDE), A)
        m_exists = m < N * P * Q
        n, p, q = site(m, P, Q)
        exists = m_exists & along(k_exists, 1 - A)
        dy = tl.load(at_grad + image_offset(n, p, q, 0, P, Q, K, NHWC), mask=exists, other=0.0)
        h, w = window_start(p, q, window)
        h, w = h + dh, w + dw
        exists = m_exists
        if MODE == 0:
            exists = exists & inside(h, w, H, W)
        else:
            h, w = repeated(h, H, MODE), repeated(w, W, MODE)
        exists = exists & along(c_exists, 1 - A)
        x = tl.load(at_input + image_offset(n, h, w, 0, H, W, C, NHWC), mask=exists, other=0.0)
        total = multiply(tl.trans(dy) if NHWC else dy, x if NHWC else tl.trans(x), total, PRECISION)

    at_weight = filter_offset(along(k, 0), along(c, 1), tap if FLAT == 0 else along(tap, 1), channels, TAPS, NHWC)
    at = partials + split * elements + at_weight
    tl.store(at, narrow(total, partials.dtype.element_ty), mask=along(k_exists, 0) & along(c_exists, 1))


@triton.jit
def backward_bias_kernel(
    grad_output,
    partials,
    N,
    K,
    pixels,
    steps,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The sums of BLOCK_N filters over `steps` steps of BLOCK_M of the N images' pixels."""
    A: tl.constexpr = pixel_axis(NHWC)
    N, K, pixels = as_wide((N, K, pixels), WIDE)
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(K, BLOCK_N)
    split = pid // tiles_n
    k = indices(pid % tiles_n, BLOCK_N, WIDE)
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(grad_output.dtype.element_ty))
    for step in range(split * steps, tl.minimum((split + 1) * steps, tl.cdiv(N * pixels, BLOCK_M))):
        m = along(indices(step, BLOCK_M, WIDE), A)
        exists = (m < N * pixels) & along(k < K, 1 - A)
        at = image_offset(m // pixels, 0, m % pixels, along(k, 1 - A), 1, pixels, K, NHWC)
        total += tl.load(grad_output + at, mask=exists, other=0.0).to(total.dtype)
    tl.store(partials + split * K + k, narrow(sum_along(total, A), partials.dtype.element_ty), mask=k < K)
