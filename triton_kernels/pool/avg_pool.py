"""avg_pool2d and adaptive_avg_pool2d in Triton: one program a tile of the tensor that it writes (see common/sites.py).

The semantics are csrc/pool's.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from ...geometry import Layout, PoolGeometry
from ..common.activation import divide
from ..common.geometry import window_start
from ..common.sites import offset, tile, work
from ..common.target import on
from ..common.types import accumulator, narrow
from ..common.windows import UNROLL, arguments, reduce_window, sizes_of, small, within_reach
from .elements import widen
from .global_avg_pool import global_avg_pool_forward


@triton.jit
def window_span(p, size, stride, pad, counted, places):
    """The elements of window p, from where to before where, and how many of them its divisor counts."""
    start = p * stride - pad
    end = start + places
    return tl.maximum(start, 0), tl.minimum(end, size), tl.minimum(end, size + counted) - tl.maximum(start, -counted)


@triton.jit
def bin_span(p, size, bins):
    """The same of adaptive pooling's bin p."""
    begin = p * size // bins
    end = ((p + 1) * size + bins - 1) // bins
    return begin, end, end - begin


@triton.jit
def spans(p, q, H, W, P, Q, window, counted, R: tl.constexpr, S: tl.constexpr, BINS: tl.constexpr):
    """The rows and the columns of the windows (p, q), or of the bins."""
    if BINS:
        return bin_span(p, H, P), bin_span(q, W, Q)
    else:
        stride_h, stride_w, pad_h, pad_w, _, _ = window
        return window_span(p, H, stride_h, pad_h, counted[0], R), window_span(q, W, stride_w, pad_w, counted[1], S)


@triton.jit
def divisor_of(rows, columns, element: tl.constexpr):
    return rows[2].to(accumulator(element)) * columns[2].to(accumulator(element))


@triton.jit
def add_up(total, place, pointers, inside):
    return total + widen(tl.load(pointers, mask=inside, other=0))


@triton.jit
def add_within(state, place, pointers, inside):
    """Of bins, which differ in size: a bin has so many rows, and columns of S places."""
    total, rows, columns, S = state
    inside = inside & (place // S < rows) & (place % S < columns)
    return total + widen(tl.load(pointers, mask=inside, other=0)), rows, columns, S


@triton.jit
def forward_kernel(
    input,
    output,
    geometry,
    counted,
    divisor,
    R: tl.constexpr,
    S: tl.constexpr,
    BINS: tl.constexpr,
    SAME: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """All windows have one divisor if SAME. A bin has R x S places at most."""
    element: tl.constexpr = output.dtype.element_ty
    images, C, H, W, P, Q, window = sizes_of(geometry, WIDE)
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    rows, columns = spans(p, q, H, W, P, Q, window, counted, R, S, BINS)
    total = tl.zeros([A, B], accumulator(element))
    if BINS:
        total, _, _, _ = reduce_window(
            (total, rows[1] - rows[0], columns[1] - columns[0], tl.cast(S, tl.int32)),
            input, image, rows[0], columns[0], channel, exists, H, W, C, window, R, S, UNROLLED, add_within,
        )  # fmt: skip
    else:
        h, w = window_start(p, q, window)
        total = reduce_window(
            total, input, image, h, w, channel, exists, H, W, C, window, R, S, UNROLLED, add_up
        )  # fmt: skip
    by = tl.zeros([A, B], total.dtype)
    by += divisor if SAME else divisor_of(rows, columns, element)
    tl.store(output + offset(image, p, q, channel, P, Q, C), narrow(divide(total, by), element), mask=exists)


@triton.jit
def first_average(h, size, averages, stride, pad, places: tl.constexpr, BINS: tl.constexpr):
    """The first window or bin that holds an element."""
    if BINS:
        return h * averages // size
    else:
        x = h + pad
        return tl.where(x < places, 0, (x - places) // stride + 1)


@triton.jit
def add_average(
    total, k, grad_output, image, h, w, p, q, channel, exists, H, W, P, Q, C, window, counted,
    R: tl.constexpr, S: tl.constexpr, COLUMNS: tl.constexpr, BINS: tl.constexpr, SAME: tl.constexpr,
):  # fmt: skip
    """Adds what the element has of the gradient of the k-th window or bin from (p, q) on, if that holds it."""
    p, q = p + k // COLUMNS, q + k % COLUMNS
    rows, columns = spans(p, q, H, W, P, Q, window, counted, R, S, BINS)
    holds = exists & (p < P) & (q < Q) & (h >= rows[0]) & (w >= columns[0])  # none from (p, q) on ends before it
    grad = widen(tl.load(grad_output + offset(image, p, q, channel, P, Q, C), mask=holds, other=0))
    if not SAME:
        grad = divide(grad, tl.zeros_like(grad) + divisor_of(rows, columns, grad_output.dtype.element_ty))
    return total + tl.where(holds, grad, 0)


@triton.jit
def backward_kernel(
    grad_output,
    grad_input,
    geometry,
    counted,
    divisor,
    R: tl.constexpr,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BINS: tl.constexpr,
    SAME: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """An element is in at most ROWS x COLUMNS windows or bins, visited in ascending (p, q)."""
    element: tl.constexpr = grad_input.dtype.element_ty
    images, C, H, W, P, Q, window = sizes_of(geometry, WIDE)
    image, h, w, channel, exists = tile(images, H, W, C, NHWC, A, B, WIDE)
    p = first_average(h, H, P, window[0], window[2], R, BINS)
    q = first_average(w, W, Q, window[1], window[3], S, BINS)
    total = tl.zeros([A, B], accumulator(element))
    if UNROLLED:
        for k in tl.static_range(ROWS * COLUMNS):
            total = add_average(
                total, k, grad_output, image, h, w, p, q, channel, exists, H, W, P, Q, C, window, counted,
                R, S, COLUMNS, BINS, SAME,
            )  # fmt: skip
    else:
        for k in range(ROWS * COLUMNS):
            total = add_average(
                total, k, grad_output, image, h, w, p, q, channel, exists, H, W, P, Q, C, window, counted,
                R, S, COLUMNS, BINS, SAME,
            )  # fmt: skip
    if SAME:
        total = divide(total, tl.zeros_like(total) + divisor)
    tl.store(grad_input + offset(image, h, w, channel, H, W, C), narrow(total, element), mask=exists)


def _divisor(g: PoolGeometry, counted: tuple[int, int], divisor_override: int | None) -> int:
    """The one that all windows have, 0 where they differ."""
    if divisor_override is not None:
        return divisor_override
    whole = all(
        axis.pad == pad and (axis.places - 1) * axis.stride - axis.pad + axis.taps <= axis.size + pad
        for axis, pad in zip(g.axes[1:], counted, strict=True)
    )
    return g.r * g.s if whole else 0


def _launch_windows(
    kernel: triton.JITFunction, tensors: tuple[Tensor, Tensor], geometry: PoolGeometry, layout: Layout,
    count_include_pad: bool, divisor_override: int | None, rows: int, columns: int, **steps: int | bool,
) -> None:  # fmt: skip
    """Over a tensor of `rows` x `columns`."""
    g = within_reach(geometry)
    counted = (g.pad_h, g.pad_w) if count_include_pad else (0, 0)
    divisor = _divisor(g, counted, divisor_override)
    with on(tensors[0]):
        for part in work(tensors, layout, rows, columns, small(g)):
            kernel[(part.programs,)](
                *part.tensors, arguments(part, g), counted, divisor,
                R=g.r, S=g.s, BINS=False, SAME=divisor != 0, **steps, **part.constants,
            )  # fmt: skip


def avg_pool_forward(
    input: Tensor, output: Tensor, geometry: PoolGeometry, layout: Layout, count_include_pad: bool,
    divisor_override: int | None,
) -> None:  # fmt: skip
    """Writes every window's sum over its divisor."""
    g = geometry
    _launch_windows(
        forward_kernel, (input, output), g, layout, count_include_pad, divisor_override, g.p, g.q,
        UNROLLED=g.r * g.s <= UNROLL,
    )  # fmt: skip


def avg_pool_backward(
    grad_output: Tensor, grad_input: Tensor, geometry: PoolGeometry, layout: Layout, count_include_pad: bool,
    divisor_override: int | None,
) -> None:  # fmt: skip
    """Writes every gradient of the input: the sum of grad_output / divisor over the windows that hold the element."""
    g = within_reach(geometry)
    rows, columns = -(-g.r // g.stride_h), -(-g.s // g.stride_w)
    _launch_windows(
        backward_kernel, (grad_output, grad_input), g, layout, count_include_pad, divisor_override, g.h, g.w,
        ROWS=rows, COLUMNS=columns, UNROLLED=rows * columns <= UNROLL,
    )  # fmt: skip


def _most(size: int, bins: int) -> int:
    """The most elements of one of the bins; with the arguments exchanged, the most bins that hold one element."""
    return -(-(size + bins - math.gcd(size, bins)) // bins)


def _launch_bins(
    kernel: triton.JITFunction, tensors: tuple[Tensor, Tensor], g: PoolGeometry, layout: Layout, rows: int,
    columns: int, **steps: int | bool,
) -> None:  # fmt: skip
    same = g.h % g.p == 0 and g.w % g.q == 0
    divisor = g.h // g.p * (g.w // g.q) if same else 0
    narrow_enough = max((g.h + 3) * (g.p + 3), (g.w + 3) * (g.q + 3)) < 2**31
    with on(tensors[0]):
        for part in work(tensors, layout, rows, columns, narrow_enough):
            kernel[(part.programs,)](
                *part.tensors, arguments(part, g), (0, 0), divisor,
                R=_most(g.h, g.p), S=_most(g.w, g.q), BINS=True, SAME=same, **steps, **part.constants,
            )  # fmt: skip


def adaptive_avg_pool_forward(input: Tensor, output: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
    """Writes every bin's mean."""
    g = geometry
    if g.p == g.q == 1:
        global_avg_pool_forward(input, output, layout)
        return
    unrolled = _most(g.h, g.p) * _most(g.w, g.q) <= UNROLL
    _launch_bins(forward_kernel, (input, output), g, layout, g.p, g.q, UNROLLED=unrolled)


def adaptive_avg_pool_backward(grad_output: Tensor, grad_input: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
    """Writes every gradient of the input: the sum of grad_output / count over the bins that hold the element."""
    g = geometry
    rows, columns = _most(g.p, g.h), _most(g.q, g.w)
    _launch_bins(
        backward_kernel, (grad_output, grad_input), g, layout, g.h, g.w,
        ROWS=rows, COLUMNS=columns, UNROLLED=rows * columns <= UNROLL,
    )  # fmt: skip
