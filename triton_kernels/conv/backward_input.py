"""conv2d's gradient for the input in Triton:

    dx[n, h, w, c] = sum over k, r, s of dy[n, p, q, k] w[k, r, s, c],  where p u + r d - pad = h, q v + s e - pad = w

with strides u, v and dilations d, e.

With a stride most pairs (h, r) have no such p. Rows h of one remainder mod u, a phase, all share the taps that do, so
each phase is an implicit GEMM of its own, over its own taps: nothing is multiplied by zero, and a phase without taps
writes its zeros, or what a transposed convolution's epilogue makes of them. Every element of dx belongs to one phase
and is written once.
"""

import triton
import triton.language as tl

from ..common.epilogue import finish
from ..common.geometry import sizes_of
from ..common.tiles import filter_offset, image_offset, inside, pixel_axis, product, site
from ..common.types import accumulator, along, as_wide, indices, narrow


@triton.jit
def phase_taps(phase, pad, stride, dilation, common, inverse, TAPS: tl.constexpr):
    """The taps of one axis that reach the rows `phase + i stride`: the first, their number, and the window that the
    first pairs with i = 0. The next tap, stride / common further, pairs with the window dilation / common before.

    A tap r pairs with a row h where r dilation = h + pad mod stride. With common = gcd(stride, dilation) that has no
    solution unless common divides phase + pad, and else one in stride / common, by the `inverse` of dilation / common.
    """
    shifted = phase + pad
    period = stride // common
    residue = tl.cast(shifted // common % period, tl.int64) * inverse % period
    first = residue.to(tl.int32)
    taps = (TAPS - 1 - first) // period + 1
    exist = (shifted % common == 0) & (first < TAPS)
    return first, tl.where(exist, taps, 0), (shifted - first * dilation) // stride


@triton.jit
def phase_of(index, H, W, window, phases):
    """A phase: its first pixel, and how many rows and columns it has."""
    stride_h, stride_w = window[:2]
    phases_h, phases_w = phases[4:]
    h, w = index % (phases_h * phases_w) // phases_w, index % phases_w
    return h, w, tl.cdiv(H - h, stride_h), tl.cdiv(W - w, stride_w)


@triton.jit
def taps_of(phase_h, phase_w, window, phases, R: tl.constexpr, S: tl.constexpr, WIDE: tl.constexpr):
    """A phase's taps: the first's row and column, how many there are of each, and the window that the first pairs with
    the phase's first pixel."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = window
    common_h, common_w, inverse_h, inverse_w = as_wide(phases[:4], WIDE)
    first_r, taps_r, window_h = phase_taps(phase_h, pad_h, stride_h, dilation_h, common_h, inverse_h, R)
    first_s, taps_s, window_w = phase_taps(phase_w, pad_w, stride_w, dilation_w, common_w, inverse_w, S)
    return first_r, first_s, taps_r, taps_s, window_h, window_w


@triton.jit
def next_tap(r, s, first_r, first_s, window, phases, S: tl.constexpr, WIDE: tl.constexpr):
    """The tap r rows and s columns of a phase's taps further, and how far before the first's window its own is."""
    stride_h, stride_w, _, _, dilation_h, dilation_w = window
    common_h, common_w = as_wide(phases[:2], WIDE)
    tap = (first_r + r * (stride_h // common_h)) * S + first_s + s * (stride_w // common_w)
    return tap, -r * (dilation_h // common_h), -s * (dilation_w // common_w)


@triton.jit
def phase_pixel(i, j, phase_h, phase_w, window):
    stride_h, stride_w = window[:2]
    return phase_h + i * stride_h, phase_w + j * stride_w


@triton.jit
def backward_input_kernel(
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
    UNIT: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of BLOCK_M pixels of one phase x BLOCK_N channels of a group.

    A step of the loop takes BLOCK_K filters of one tap. Channels and filters count UNITs. `phases`, of rows and of
    columns: gcd(stride, dilation), the inverse of phase_taps, how many phases there are.
    """
    TAPS: tl.constexpr = R * S
    A: tl.constexpr = pixel_axis(NHWC)
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, UNIT, UNIT, WIDE)
    # Tiles of channels run first, then phases: they share what they read of grad_output.
    pid = tl.program_id(0)
    tiles_n = tl.cdiv(channels, BLOCK_N)
    tile_n = pid % tiles_n
    pid = pid // tiles_n
    phase_h, phase_w, rows, columns = phase_of(pid, H, W, window, phases)
    pid = pid // (phases[4] * phases[5])
    stride_h, stride_w = window[:2]
    tiles_m = tl.cdiv(N * tl.cdiv(H, stride_h) * tl.cdiv(W, stride_w), BLOCK_M)
    group = pid // tiles_m
    m = along(indices(pid % tiles_m, BLOCK_M, WIDE), A)
    column = along(indices(tile_n, BLOCK_N, WIDE), 1 - A)
    m_exists = m < N * rows * columns
    c_exists = column < channels
    n, i, j = site(m, rows, columns)

    first_r, first_s, taps_r, taps_s, window_h, window_w = taps_of(phase_h, phase_w, window, phases, R, S, WIDE)
    p, q = i + window_h, j + window_w
    at_grad = grad_output + image_offset(n, p, q, group * filters, P, Q, K, NHWC)
    at_weight = weight + filter_offset(group * filters, column, 0, channels, TAPS, NHWC)
    SHAPE: tl.constexpr = (BLOCK_M, BLOCK_N) if NHWC else (BLOCK_N, BLOCK_M)
    total = tl.zeros(SHAPE, accumulator(grad_output.dtype.element_ty))
    taps = taps_r * taps_s
    for step in range(tl.cdiv(filters, BLOCK_K) * taps):
        k = indices(step // taps, BLOCK_K, WIDE)
        r, s = step % taps // taps_s, step % taps_s
        tap, dp, dq = next_tap(r, s, first_r, first_s, window, phases, S, WIDE)
        k_exists = k < filters
        exists = m_exists & inside(p + dp, q + dq, P, Q) & along(k_exists, 1 - A)
        dy = tl.load(at_grad + image_offset(0, dp, dq, along(k, 1 - A), P, Q, K, NHWC), mask=exists, other=0.0)
        exists = c_exists & along(k_exists, A)
        f = tl.load(at_weight + along(filter_offset(k, 0, tap, channels, TAPS, NHWC), A), mask=exists, other=0.0)
        total = product(dy, f, total, NHWC, PRECISION)

    h, w = phase_pixel(i, j, phase_h, phase_w, window)
    c = group * channels + column
    at_input = image_offset(n, h, w, c, H, W, C, NHWC)
    exists = m_exists & c_exists
    total = finish(total, bias, scale, shift, residual, c, at_input, c_exists, exists, ACTIVATION, SLOPE)
    tl.store(grad_input + at_input, narrow(total, grad_input.dtype.element_ty), mask=exists)
