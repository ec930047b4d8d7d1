"""conv2d of narrow groups (depthwise above all) in Triton: multiply and add, element by element.

A matrix product would pad a group of one or two channels to 16, multiply its neighbours' values by zeros (an Inf there
would become a NaN here) and load 16 times the bytes it uses. Here a tile is pixels x channels of all groups side by
side, and every product is one that the sum contains.
"""

import triton
import triton.language as tl

from ..common.epilogue import finish
from ..common.tiles import filter_offset, image_offset, inside, pixel_axis, site
from ..common.types import accumulator, along, as_wide, indices, narrow
from .backward_input import phase_taps


@triton.jit
def direct_forward_kernel(
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
    N, C, H, W, K, P, Q = as_wide((N, C, H, W, K, P, Q), WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = as_wide(
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), WIDE
    )
    channels, filters = as_wide((channels, filters), WIDE)
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(K, BLOCK_N)
    m = along(indices(pid // tiles_n, BLOCK_M, WIDE), A)
    k = along(indices(pid % tiles_n, BLOCK_N, WIDE), 1 - A)
    m_exists, k_exists = m < N * P * Q, k < K
    n, p, q = site(m, P, Q)
    first = k // filters * channels
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(input.dtype.element_ty))
    for c in range(channels):
        for tap in range(TAPS):
            h = p * stride_h - pad_h + tap // S * dilation_h
            w = q * stride_w - pad_w + tap % S * dilation_w
            exists = m_exists & k_exists & inside(h, w, H, W)
            x = tl.load(input + image_offset(n, h, w, first + c, H, W, C, NHWC), mask=exists, other=0.0)
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
    grad_input,
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
    common_h,
    common_w,
    inverse_h,
    inverse_w,
    phases_h,
    phases_w,
    channels,
    filters,
    R: tl.constexpr,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tile of BLOCK_M pixels of one phase (see conv_backward_input) x BLOCK_N channels, of whichever groups."""
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q = as_wide((N, C, H, W, K, P, Q), WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = as_wide(
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), WIDE
    )
    common_h, common_w, inverse_h, inverse_w = as_wide((common_h, common_w, inverse_h, inverse_w), WIDE)
    channels, filters = as_wide((channels, filters), WIDE)
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(C, BLOCK_N)
    tile_n = pid % tiles_n
    pid = pid // tiles_n
    phases = phases_h * phases_w
    phase_h, phase_w = pid % phases // phases_w, pid % phases_w
    rows, columns = tl.cdiv(H - phase_h, stride_h), tl.cdiv(W - phase_w, stride_w)
    m = along(indices(pid // phases, BLOCK_M, WIDE), A)
    c = along(indices(tile_n, BLOCK_N, WIDE), 1 - A)
    m_exists, c_exists = m < N * rows * columns, c < C
    n, i, j = site(m, rows, columns)
    first = c // channels * filters
    first_r, taps_r, window_h = phase_taps(phase_h, pad_h, stride_h, dilation_h, common_h, inverse_h, R)
    first_s, taps_s, window_w = phase_taps(phase_w, pad_w, stride_w, dilation_w, common_w, inverse_w, S)
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(grad_output.dtype.element_ty))
    for filter in range(filters):
        k = first + filter
        for r in range(taps_r):
            for s in range(taps_s):
                tap = (first_r + r * (stride_h // common_h)) * S + first_s + s * (stride_w // common_w)
                p = i + window_h - r * (dilation_h // common_h)
                q = j + window_w - s * (dilation_w // common_w)
                exists = m_exists & c_exists & inside(p, q, P, Q)
                dy = tl.load(grad_output + image_offset(n, p, q, k, P, Q, K, NHWC), mask=exists, other=0.0)
                at_weight = weight + filter_offset(k, c % channels, tap, channels, TAPS, NHWC)
                f = tl.load(at_weight, mask=c_exists, other=0.0)
                total += dy.to(total.dtype) * f.to(total.dtype)
    h, w = phase_h + i * stride_h, phase_w + j * stride_w
    at_input = grad_input + image_offset(n, h, w, c, H, W, C, NHWC)
    tl.store(at_input, narrow(total, grad_input.dtype.element_ty), mask=m_exists & c_exists)


@triton.jit
def direct_backward_weight_kernel(
    grad_output,
    input,
    partials,
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
    steps,
    elements,
    R: tl.constexpr,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tap and channel of BLOCK_N filters, over `steps` steps of BLOCK_M pixels: see conv_backward_weight."""
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q = as_wide((N, C, H, W, K, P, Q), WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = as_wide(
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w), WIDE
    )
    channels, filters, elements = as_wide((channels, filters, elements), WIDE)
    # Taps run first: they share their gradients and most of their image.
    pid = tl.program_id(0)
    tap = pid % TAPS
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
        h = p * stride_h - pad_h + tap // S * dilation_h
        w = q * stride_w - pad_w + tap % S * dilation_w
        exists = exists & inside(h, w, H, W)
        x = tl.load(input + image_offset(n, h, w, first + c, H, W, C, NHWC), mask=exists, other=0.0)
        total += dy.to(total.dtype) * x.to(total.dtype)
    at = partials + split * elements + filter_offset(k, c, tap, channels, TAPS, NHWC)
    tl.store(at, narrow(tl.sum(total, A), partials.dtype.element_ty), mask=k < K)
