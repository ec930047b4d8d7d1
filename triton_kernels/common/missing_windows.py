"""The gradient of a convolution's input at pixels that miss a window.

Kernels multiply the zeros around the error by the taps that lead there, which changes no sum while taps are finite; an
infinite or NaN one makes NaN of it. PyTorch's operator adds what windows that exist give, and nothing else. So once a
kernel, whichever it was, has written the gradient, the sums at the image's border are looked at, and those that are NaN
are made anew, product by product.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from ...geometry import ConvGeometry, Layout
from .epilogue import finish
from .geometry import arguments, is_wide, sizes_of
from .tiles import filter_offset, image_offset
from .types import accumulator, indices, narrow

BLOCK = 512  # elements of a program


@triton.jit
def window_of(pixel, tap, windows, pad, stride, dilation):
    """The window in which a tap has a pixel of an axis, and whether there is one."""
    reach = pixel + pad - tap * dilation
    window = reach // stride
    return window, (reach >= 0) & (reach % stride == 0) & (window < windows)


@triton.jit
def beyond(number, begin, end):
    """A pixel of an axis by its number among those before begin or from end on."""
    return tl.where(number < begin, number, number - begin + end)


@triton.jit
def missing_windows_kernel(
    grad_output,
    weight,
    bias,
    scale,
    shift,
    residual,
    grad_input,
    geometry,
    border,
    R: tl.constexpr,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK elements of the images' borders. `border`: rows and columns from the first on and before the second miss no
    window."""
    TAPS: tl.constexpr = R * S
    N, C, H, W, K, P, Q, channels, filters, window = sizes_of(geometry, 1, 1, WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = window
    top, bottom, left, right = border
    whole, ends = (H - (bottom - top)) * W, W - (right - left)
    pixels = whole + (bottom - top) * ends
    index = indices(tl.program_id(0), BLOCK, WIDE)
    if NHWC:
        c, pixel, n = index % C, index // C % pixels, index // C // pixels
    else:
        pixel, c, n = index % pixels, index // pixels % C, index // pixels // C
    other = tl.maximum(pixel - whole, 0)
    per_row = tl.maximum(ends, 1)
    h = tl.where(pixel < whole, beyond(pixel // W, top, bottom), top + other // per_row)
    w = tl.where(pixel < whole, pixel % W, beyond(other % per_row, left, right))
    offset = image_offset(n, h, w, c, H, W, C, NHWC)
    at_input = grad_input + offset
    ACCUMULATOR: tl.constexpr = accumulator(grad_output.dtype.element_ty)
    total = tl.load(at_input, mask=n < N, other=0.0).to(ACCUMULATOR)
    asked = total != total
    total = tl.where(asked, 0.0, total)
    group = c // channels
    # A sum that is NaN of right ends at the product that makes it so. Taps run first: one of them is a window's.
    going, step = asked, 0
    while (step < TAPS * filters) & (tl.max(going.to(tl.int32), 0) > 0):
        tap, k = step % TAPS, group * filters + step // TAPS
        p, p_exists = window_of(h, tap // S, P, pad_h, stride_h, dilation_h)
        q, q_exists = window_of(w, tap % S, Q, pad_w, stride_w, dilation_w)
        exists = going & p_exists & q_exists
        dy = tl.load(grad_output + image_offset(n, p, q, k, P, Q, K, NHWC), mask=exists, other=0.0)
        at_weight = weight + filter_offset(k, c - group * channels, tap, channels, TAPS, NHWC)
        f = tl.load(at_weight, mask=exists, other=0.0)
        total += dy.to(ACCUMULATOR) * f.to(ACCUMULATOR)
        going = going & (total == total)
        step += 1
    # An epilogue makes NaN of a NaN, so that it was seen in the output.
    total = finish(total, bias, scale, shift, residual, c, offset, asked, asked, ACTIVATION, SLOPE)
    tl.store(at_input, narrow(total, grad_input.dtype.element_ty), mask=asked)


def _complete(size: int, windows: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """The pixels of an axis from the first on and before the second miss no window. Of the windows that are missed in
    front, the last tap's reach furthest, of those behind the first tap's."""
    begin = min(max(0, (taps - 1) * dilation - pad - stride + 1), size)
    return begin, min(max(begin, windows * stride - pad), size)


def leave_out_missing_windows(
    grad_output: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    slope: float = 0.0,
) -> None:
    """Tensors as in a convolution's backward_input; bias and what follows it are a transposed convolution's. One
    launch, none where every pixel has all of its windows."""
    g = geometry
    top, bottom = _complete(g.h, g.p, g.r, g.stride_h, g.pad_h, g.dilation_h)
    left, right = _complete(g.w, g.q, g.s, g.stride_w, g.pad_w, g.dilation_w)
    pixels = g.h * g.w - (bottom - top) * (right - left)
    if pixels == 0:
        return
    missing_windows_kernel[(math.ceil(g.n * pixels * g.c / BLOCK),)](
        grad_output, weight, bias, scale, shift, residual, grad_input, arguments(g), (top, bottom, left, right),
        R=g.r, S=g.s, NHWC=layout is Layout.NHWC, WIDE=is_wide(g), ACTIVATION=activation,
        SLOPE=slope if activation == "leaky_relu" else 0.0, BLOCK=BLOCK,
    )  # fmt: skip
