"""conv2d of narrow groups (depthwise above all) in Triton: multiply and add, element by element.

A matrix product would pad a group of one or two channels to 16, multiply its neighbours' values by zeros (an Inf there
would become a NaN here) and load 16 times the bytes it uses. Here a tile is pixels x channels of all groups side by
side, and every product is one that the sum contains.
"""

import triton
import triton.language as tl

from ..common.epilogue import finish
from ..common.geometry import sizes_of, tap_distance, window_start
from ..common.sums import sum_along
from ..common.tiles import filter_offset, image_offset, inside, pixel_axis, site
from ..common.types import accumulator, along, as_wide, indices, narrow
from .backward_input import next_tap, phase_of, phase_pixel, taps_of


@triton.jit
def direct_forward_kernel(
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
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tile of BLOCK_M pixels x BLOCK_N filters, of whichever groups."""
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, 1, 1, WIDE)
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(K, BLOCK_N)
    m = along(indices(pid // tiles_n, BLOCK_M, WIDE), A)
    k = along(indices(pid % tiles_n, BLOCK_N, WIDE), 1 - A)
    m_exists, k_exists = m < N * P * Q, k < K
    n, p, q = site(m, P, Q)
    h, w = window_start(p, q, window)
    first = k // filters * channels
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(input.dtype.element_ty))
    for c in range(channels):
        for tap in range(TAPS):
            dh, dw = tap_distance(tap // S, tap % S, window)
            exists = m_exists & k_exists & inside(h + dh, w + dw, H, W)
            x = tl.load(input + image_offset(n, h + dh, w + dw, first + c, H, W, C, NHWC), mask=exists, other=0.0)
            f = tl.load(weight + filter_offset(k, c, tap, channels, TAPS, NHWC), mask=k_exists, other=0.0)
            total += x.to(total.dtype) * f.to(total.dtype)
    at_output = image_offset(n, p, q, k, P, Q, K, NHWC)
    exists = m_exists & k_exists
    total = finish(total, bias, scale, shift, residual, k, at_output, k_exists, exists, ACTIVATION, SLOPE)
    tl.store(output + at_output, narrow(total, output.dtype.element_ty), mask=exists)


@triton.jit
def direct_backward_input_kernel(
    grad_output,
    weight,
    bias,
    scale,
    shift,
    residual,
    grad_input,
    geometry,
    phases,
    R: tl.constexpr,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tile of BLOCK_M pixels of one phase (see backward_input.py) x BLOCK_N channels, of whichever groups."""
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, 1, 1, WIDE)
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(C, BLOCK_N)
    tile_n = pid % tiles_n
    pid = pid // tiles_n
    phase_h, phase_w, rows, columns = phase_of(pid, H, W, window, phases)
    m = along(indices(pid // (phases[4] * phases[5]), BLOCK_M, WIDE), A)
    c = along(indices(tile_n, BLOCK_N, WIDE), 1 - A)
    m_exists, c_exists = m < N * rows * columns, c < C
    n, i, j = site(m, rows, columns)
    first = c // channels * filters
    first_r, first_s, taps_r, taps_s, window_h, window_w = taps_of(phase_h, phase_w, window, phases, R, S, WIDE)
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(grad_output.dtype.element_ty))
    for filter in range(filters):
        k = first + filter
        for r in range(taps_r):
            for s in range(taps_s):
                tap, dp, dq = next_tap(r, s, first_r, first_s, window, phases, S, WIDE)
                p, q = i + window_h + dp, j + window_w + dq
                exists = m_exists & c_exists & inside(p, q, P, Q)
                dy = tl.load(grad_output + image_offset(n, p, q, k, P, Q, K, NHWC), mask=exists, other=0.0)
                at_weight = weight + filter_offset(k, c % channels, tap, channels, TAPS, NHWC)
                f = tl.load(at_weight, mask=c_exists, other=0.0)
                total += dy.to(total.dtype) * f.to(total.dtype)
    h, w = phase_pixel(i, j, phase_h, phase_w, window)
    at_input = image_offset(n, h, w, c, H, W, C, NHWC)
    exists = m_exists & c_exists
    total = finish(total, bias, scale, shift, residual, c, at_input, c_exists, exists, ACTIVATION, SLOPE)
    tl.store(grad_input + at_input, narrow(total, grad_input.dtype.element_ty), mask=exists)


@triton.jit
def direct_backward_weight_kernel(
    grad_output,
    input,
    partials,
    geometry,
    steps,
    elements,
    R: tl.constexpr,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tap and channel of BLOCK_N filters, over `steps` steps of BLOCK_M pixels: see backward_weight.py."""
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, 1, 1, WIDE)
    (elements,) = as_wide((elements,), WIDE)
    # Taps run first: they share their gradients and most of their image.
    pid = tl.program_id(0)
    tap = pid % TAPS
    dh, dw = tap_distance(tap // S, tap % S, window)
    pid = pid // TAPS
    c = pid % channels
    pid = pid // channels
    tiles_n = tl.cdiv(K, BLOCK_N)
    split = pid // tiles_n
    k = indices(pid % tiles_n, BLOCK_N, WIDE)
    filter = along(k, 1 - A)
    first = filter // filters * channels
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(input.dtype.element_ty))
    for step in range(split * steps, tl.minimum((split + 1) * steps, tl.cdiv(N * P * Q, BLOCK_M))):
        m = along(indices(step, BLOCK_M, WIDE), A)
        n, p, q = site(m, P, Q)
        exists = (m < N * P * Q) & (filter < K)
        dy = tl.load(grad_output + image_offset(n, p, q, filter, P, Q, K, NHWC), mask=exists, other=0.0)
        h, w = window_start(p, q, window)
        h, w = h + dh, w + dw
        exists = exists & inside(h, w, H, W)
        x = tl.load(input + image_offset(n, h, w, first + c, H, W, C, NHWC), mask=exists, other=0.0)
        total += dy.to(total.dtype) * x.to(total.dtype)
    at = partials + split * elements + filter_offset(k, c, tap, channels, TAPS, NHWC)
    tl.store(at, narrow(sum_along(total, A), partials.dtype.element_ty), mask=k < K)
