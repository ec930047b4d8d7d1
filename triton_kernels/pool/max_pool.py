"""max_pool2d in Triton: one program a tile of the tensor that it writes (see common/sites.py).

The semantics are csrc/pool's, and so are the bits.
"""

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ...geometry import Layout, PoolGeometry
from ..common.geometry import tap_distance, window_start
from ..common.sites import offset, tile, work
from ..common.target import on
from ..common.types import accumulator, as_wide
from ..common.windows import UNROLL, arguments, first_place, reduce_window, sizes_of, small, within_reach
from .elements import widen


@triton.jit
def restore(x, element: tl.constexpr):
    """The inverse of widen."""
    if element == tl.bfloat16:
        return (x.to(tl.int32, bitcast=True) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(element)


@triton.jit
def keep_largest(state, place, pointers, inside):
    """(best, where): strictly greater, so that the first maximum stays. A NaN is always taken, and only another NaN
    replaces it."""
    best, where = state
    x = widen(tl.load(pointers, mask=inside, other=float("-inf")))
    wins = (x > best) | (x != x)
    return tl.where(wins, x, best), tl.where(wins, place, where)


@triton.jit
def forward_kernel(
    input,
    output,
    argmax,
    geometry,
    R: tl.constexpr,
    S: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    images, C, H, W, P, Q, window = sizes_of(geometry, WIDE)
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    h, w = window_start(p, q, window)
    first = first_place(h, window[4], R) * S + first_place(w, window[5], S)
    best = tl.full([A, B], float("-inf"), accumulator(input.dtype.element_ty))
    best, place = reduce_window(
        (best, tl.zeros([A, B], tl.int32) + first.to(tl.int32)),
        input, image, h, w, channel, exists, H, W, C, window, R, S, UNROLLED, keep_largest,
    )  # fmt: skip
    out = offset(image, p, q, channel, P, Q, C)
    tl.store(output + out, restore(best, output.dtype.element_ty), mask=exists)
    tl.store(argmax + out, place.to(argmax.dtype.element_ty), mask=exists)


@triton.jit
def first_window(x, places, stride, dilation, common, place_step, inverse):
    """The place of x in the first window of one axis that holds it (< 0: none does), and that window.

    Solves place * dilation + window * stride = x (x counts from the padding's start): see docs/pool.md.
    """
    residue = (x // common % place_step) * inverse % place_step
    top = tl.minimum(x // dilation, places - 1)
    place = top - (top - residue + place_step) % place_step
    place = tl.where((x % common == 0) & (top >= residue), place, -1)
    return place, (x - place * dilation) // stride


@triton.jit
def add_window(
    total, k, grad_output, argmax, image, r, s, p, q, channel, exists, P, Q, C,
    r_step, s_step, p_step, q_step, S: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Adds the gradient of the k-th window that holds the element, if the element is that window's winner."""
    i, j = k // COLUMNS, k % COLUMNS
    r, s, p, q = r - i * r_step, s - j * s_step, p + i * p_step, q + j * q_step
    holds = exists & (r >= 0) & (s >= 0) & (p < P) & (q < Q)
    at = offset(image, p, q, channel, P, Q, C)
    winner = tl.load(argmax + at, mask=holds, other=0).to(tl.int32)
    grad = widen(tl.load(grad_output + at, mask=holds, other=0))
    return total + tl.where(holds & (winner == r * S + s), grad, 0)


@triton.jit
def backward_kernel(
    grad_output,
    argmax,
    grad_input,
    geometry,
    transposed,
    R: tl.constexpr,
    S: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """An element is held by at most ROWS x COLUMNS windows, visited in ascending (p, q)."""
    images, C, H, W, P, Q, window = sizes_of(geometry, WIDE)
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = window
    common_h, common_w, place_step_h, place_step_w, inverse_h, inverse_w = as_wide(transposed, WIDE)
    image, h, w, channel, exists = tile(images, H, W, C, NHWC, A, B, WIDE)
    r, p = first_window(h + pad_h, R, stride_h, dilation_h, common_h, place_step_h, inverse_h)
    s, q = first_window(w + pad_w, S, stride_w, dilation_w, common_w, place_step_w, inverse_w)
    p_step, q_step = dilation_h // common_h, dilation_w // common_w
    total = tl.zeros([A, B], accumulator(grad_output.dtype.element_ty))
    if UNROLLED:
        for k in tl.static_range(ROWS * COLUMNS):
            total = add_window(
                total, k, grad_output, argmax, image, r, s, p, q, channel, exists, P, Q, C,
                place_step_h, place_step_w, p_step, q_step, S, COLUMNS,
            )  # fmt: skip
    else:
        for k in range(ROWS * COLUMNS):
            total = add_window(
                total, k, grad_output, argmax, image, r, s, p, q, channel, exists, P, Q, C,
                place_step_h, place_step_w, p_step, q_step, S, COLUMNS,
            )  # fmt: skip
    at = offset(image, h, w, channel, H, W, C)
    tl.store(grad_input + at, total.to(grad_input.dtype.element_ty), mask=exists)


@triton.jit
def gather_kernel(
    input,
    argmax,
    output,
    geometry,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    images, C, H, W, P, Q, window = sizes_of(geometry, WIDE)
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    at = offset(image, p, q, channel, P, Q, C)
    winner = tl.load(argmax + at, mask=exists, other=0).to(tl.int32)
    h, w = window_start(p, q, window)
    dh, dw = tap_distance(winner // S, winner % S, window)
    h, w = h + dh, w + dw
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & exists
    x = tl.load(input + offset(image, h, w, channel, H, W, C), mask=inside, other=0)
    tl.store(output + at, x, mask=exists)


@triton.jit
def indices_kernel(
    argmax,
    indices,
    geometry,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """h * W + w, with the caller's own strides and dilations: a window with no place inside has an index too."""
    images, C, _, W, P, Q, window = sizes_of(geometry, WIDE)
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    at = offset(image, p, q, channel, P, Q, C)
    winner = tl.load(argmax + at, mask=exists, other=0).to(tl.int64)
    h, w = window_start(p.to(tl.int64), q.to(tl.int64), window)
    dh, dw = tap_distance(winner // S, winner % S, window)
    tl.store(indices + at, (h + dh) * W + w + dw, mask=exists)


class _Transposed(NamedTuple):
    """One axis of the backward, seen from an element: the windows that hold it are `place_step` places apart."""

    common: int
    place_step: int
    inverse: int
    steps: int  # the most windows that hold one element

    @classmethod
    def of(cls, places: int, stride: int, dilation: int) -> "_Transposed":
        common = math.gcd(stride, dilation)
        place_step = stride // common
        inverse = pow(dilation // common, -1, place_step) if place_step > 1 else 0
        return cls(common, place_step, inverse, -(-places // place_step))


def max_pool_forward(input: Tensor, output: Tensor, argmax: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
    """Writes every window's maximum and its place r * S + s."""
    g = within_reach(geometry)
    with on(input):
        for part in work((input, output, argmax), layout, g.p, g.q, small(g)):
            forward_kernel[(part.programs,)](
                *part.tensors, arguments(part, g),
                R=g.r, S=g.s, UNROLLED=g.r * g.s <= UNROLL, **part.constants,
            )  # fmt: skip


def max_pool_backward(
    grad_output: Tensor, argmax: Tensor, grad_input: Tensor, geometry: PoolGeometry, layout: Layout
) -> None:
    """Writes every gradient of the input: the sum of grad_output over the windows the element won."""
    g = within_reach(geometry)
    rows, columns = _Transposed.of(g.r, g.stride_h, g.dilation_h), _Transposed.of(g.s, g.stride_w, g.dilation_w)
    with on(grad_output):
        for part in work((grad_output, argmax, grad_input), layout, g.h, g.w, small(g)):
            backward_kernel[(part.programs,)](
                *part.tensors, arguments(part, g),
                (rows.common, columns.common, rows.place_step, columns.place_step, rows.inverse, columns.inverse),
                R=g.r, S=g.s, ROWS=rows.steps, COLUMNS=columns.steps,
                UNROLLED=rows.steps * columns.steps <= UNROLL, **part.constants,
            )  # fmt: skip


def max_pool_gather(input: Tensor, argmax: Tensor, output: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
    """Writes the input at every window's winner, 0 for a window with no place inside: the backward's derivative."""
    g = within_reach(geometry)
    with on(input):
        for part in work((input, argmax, output), layout, g.p, g.q, small(g)):
            gather_kernel[(part.programs,)](*part.tensors, arguments(part, g), S=g.s, **part.constants)


def max_pool_indices(argmax: Tensor, indices: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
    """Writes PyTorch's index h * W + w of every window's winner."""
    g = geometry
    with on(argmax):
        for part in work((argmax, indices), layout, g.p, g.q):
            indices_kernel[(part.programs,)](*part.tensors, arguments(part, g), S=g.s, **part.constants)
