"""max_pool2d and max_unpool2d in Triton: one program a tile of the tensor that it writes.

A tile is [A, B] elements, B of them side by side in memory. There is one addressing scheme, NHWC: a dense NCHW tensor
is an NHWC tensor of N * C images with one channel each. The layouts differ in what the two axes of a tile are:

    NHWC   A pixels (n, p, q) x B channels       index arithmetic once a pixel
    NCHW   A images n * C + c x B pixels (p, q)   index arithmetic once a pixel, shared by all images

The semantics are csrc/max_pool2d's, and so are the bits.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from cnnkernels.geometry import Layout, Pool2dGeometry

# What 32-bit arithmetic may meet: a larger batch is served in slices, a larger image with 64-bit arithmetic.
LARGEST_INDEX = 2**31 - 2**16
# Elements of a tile, 8 a thread.
TILE = 1024
NUM_WARPS = 4
# Loops of up to this many steps are unrolled, so that their loads are in flight together.
UNROLL = 32


@triton.jit
def tile(
    images,
    rows,
    columns,
    channels,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The sites of this program's tile of [images, rows, columns, channels], and which of them exist."""
    pid = tl.program_id(0)
    if WIDE:
        pid = pid.to(tl.int64)
        rows = tl.cast(rows, tl.int64)
        images = tl.cast(images, tl.int64)
    pixels = rows * columns
    if NHWC:
        across = tl.cdiv(channels, B)
        index = (pid // across) * A + tl.arange(0, A)[:, None]
        channel = (pid % across) * B + tl.arange(0, B)[None, :]
        image = index // pixels
        pixel = index - image * pixels
        exists = (image < images) & (channel < channels)
    else:
        across = tl.cdiv(pixels, B)
        image = (pid // across) * A + tl.arange(0, A)[:, None]
        pixel = (pid % across) * B + tl.arange(0, B)[None, :]
        channel = 0
        exists = (image < images) & (pixel < pixels)
    row = pixel // columns
    return image, row, pixel - row * columns, channel, exists


@triton.jit
def offset(image, row, column, channel, rows, columns, channels):
    return ((image * rows + row) * columns + column) * channels + channel


@triton.jit
def accumulator(pointer):
    element: tl.constexpr = pointer.dtype.element_ty
    if element == tl.float64:
        return tl.float64
    else:
        return tl.float32


@triton.jit
def first_place(start, dilation, places):
    """The first place of a window that stands at or after the input's start (the last one if there is none)."""
    return tl.minimum(tl.where(start < 0, (dilation - 1 - start) // dilation, 0), places - 1)


@triton.jit
def meet(best, place, at, input, image, h, w, channel, exists, H, W, C, dilation_h, dilation_w, S: tl.constexpr):
    """Strictly greater, so that the first maximum stays. A NaN is always taken, and only another NaN replaces it."""
    row = h + (at // S) * dilation_h
    column = w + (at % S) * dilation_w
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W) & exists
    at_input = input + offset(image, row, column, channel, H, W, C)
    x = tl.load(at_input, mask=inside, other=float("-inf")).to(best.dtype)
    wins = (x > best) | (x != x)
    return tl.where(wins, x, best), tl.where(wins, at, place)


@triton.jit
def forward_kernel(
    input,
    output,
    argmax,
    images,
    C,
    H,
    W,
    P,
    Q,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    R: tl.constexpr,
    S: tl.constexpr,
    UNROLLED: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    h = p * stride_h - pad_h
    w = q * stride_w - pad_w
    place = tl.zeros([A, B], tl.int32) + (first_place(h, dilation_h, R) * S + first_place(w, dilation_w, S)).to(
        tl.int32
    )
    best = tl.full([A, B], float("-inf"), accumulator(input))
    if UNROLLED:
        for at in tl.static_range(R * S):
            best, place = meet(best, place, at, input, image, h, w, channel, exists, H, W, C, dilation_h, dilation_w, S)
    else:
        for at in range(R * S):
            best, place = meet(best, place, at, input, image, h, w, channel, exists, H, W, C, dilation_h, dilation_w, S)
    out = offset(image, p, q, channel, P, Q, C)
    tl.store(output + out, best.to(output.dtype.element_ty), mask=exists)
    tl.store(argmax + out, place.to(argmax.dtype.element_ty), mask=exists)


@triton.jit
def first_window(x, places, stride, dilation, common, place_step, inverse):
    """The place of x in the first window of one axis that holds it (< 0: none does), and that window.

    Solves place * dilation + window * stride = x (x counts from the padding's start): see docs/max_pool2d.md.
    """
    residue = (x // common % place_step) * inverse % place_step
    top = tl.minimum(x // dilation, places - 1)
    place = top - (top - residue + place_step) % place_step
    place = tl.where((x % common == 0) & (top >= residue), place, -1)
    return place, (x - place * dilation) // stride


@triton.jit
def route(total, grad_output, argmax, image, r, s, p, q, channel, exists, P, Q, C, S: tl.constexpr):
    """Adds the gradient of window (p, q) where the element is the window's winner, at place (r, s)."""
    holds = exists & (r >= 0) & (s >= 0) & (p < P) & (q < Q)
    at = offset(image, p, q, channel, P, Q, C)
    winner = tl.load(argmax + at, mask=holds, other=0).to(tl.int32)
    grad = tl.load(grad_output + at, mask=holds, other=0).to(total.dtype)
    return total + tl.where(holds & (winner == r * S + s), grad, 0)


@triton.jit
def backward_kernel(
    grad_output,
    argmax,
    grad_input,
    images,
    C,
    H,
    W,
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
    place_step_h,
    place_step_w,
    inverse_h,
    inverse_w,
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
    image, h, w, channel, exists = tile(images, H, W, C, NHWC, A, B, WIDE)
    r, p = first_window(h + pad_h, R, stride_h, dilation_h, common_h, place_step_h, inverse_h)
    s, q = first_window(w + pad_w, S, stride_w, dilation_w, common_w, place_step_w, inverse_w)
    r_step, s_step = place_step_h, place_step_w
    p_step, q_step = dilation_h // common_h, dilation_w // common_w
    total = tl.zeros([A, B], accumulator(grad_output))
    if UNROLLED:
        for i in tl.static_range(ROWS):
            for j in tl.static_range(COLUMNS):
                total = route(
                    total, grad_output, argmax, image, r - i * r_step, s - j * s_step, p + i * p_step, q + j * q_step,
                    channel, exists, P, Q, C, S,
                )  # fmt: skip
    else:
        for i in range(ROWS):
            for j in range(COLUMNS):
                total = route(
                    total, grad_output, argmax, image, r - i * r_step, s - j * s_step, p + i * p_step, q + j * q_step,
                    channel, exists, P, Q, C, S,
                )  # fmt: skip
    at = offset(image, h, w, channel, H, W, C)
    tl.store(grad_input + at, total.to(grad_input.dtype.element_ty), mask=exists)


@triton.jit
def gather_kernel(
    input,
    argmax,
    output,
    images,
    C,
    H,
    W,
    P,
    Q,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    at = offset(image, p, q, channel, P, Q, C)
    winner = tl.load(argmax + at, mask=exists, other=0).to(tl.int32)
    h = p * stride_h - pad_h + (winner // S) * dilation_h
    w = q * stride_w - pad_w + (winner % S) * dilation_w
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & exists
    x = tl.load(input + offset(image, h, w, channel, H, W, C), mask=inside, other=0)
    tl.store(output + at, x, mask=exists)


@triton.jit
def indices_kernel(
    argmax,
    indices,
    images,
    C,
    W,
    P,
    Q,
    stride_h,
    stride_w,
    pad_h,
    pad_w,
    dilation_h,
    dilation_w,
    S: tl.constexpr,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """h * W + w, with the caller's own strides and dilations: a window with no place inside has an index too."""
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    at = offset(image, p, q, channel, P, Q, C)
    winner = tl.load(argmax + at, mask=exists, other=0).to(tl.int64)
    h = p.to(tl.int64) * stride_h - pad_h + (winner // S) * dilation_h
    w = q.to(tl.int64) * stride_w - pad_w + (winner % S) * dilation_w
    tl.store(indices + at, h * W + w, mask=exists)


@triton.jit
def unpool_scatter_kernel(
    indices,
    winner,
    images,
    C,
    P,
    Q,
    pixels,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Positions are scattered, not values: the integer maximum keeps the last window's in whatever order."""
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    index = tl.load(indices + offset(image, p, q, channel, P, Q, C), mask=exists, other=-1)
    inside = (index >= 0) & (index < pixels)
    if not WIDE:
        index = index.to(tl.int32)
    at = winner + (image * pixels + index) * C + channel
    position = tl.zeros([A, B], tl.int32) + (p * Q + q + 1).to(tl.int32)
    tl.atomic_max(at, position, mask=inside, sem="relaxed")


@triton.jit
def unpool_forward_kernel(
    input,
    winner,
    output,
    images,
    C,
    H,
    W,
    positions,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    image, h, w, channel, exists = tile(images, H, W, C, NHWC, A, B, WIDE)
    at = offset(image, h, w, channel, H, W, C)
    position = tl.load(winner + at, mask=exists, other=0)
    x = tl.load(input + (image * positions + position - 1) * C + channel, mask=position > 0, other=0)
    tl.store(output + at, x, mask=exists)


@triton.jit
def unpool_backward_kernel(
    grad_output,
    indices,
    grad_input,
    images,
    C,
    P,
    Q,
    pixels,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    WIDE: tl.constexpr,
):
    image, p, q, channel, exists = tile(images, P, Q, C, NHWC, A, B, WIDE)
    at = offset(image, p, q, channel, P, Q, C)
    index = tl.load(indices + at, mask=exists, other=-1)
    inside = (index >= 0) & (index < pixels)
    if not WIDE:
        index = index.to(tl.int32)
    grad = tl.load(grad_output + (image * pixels + index) * C + channel, mask=inside, other=0)
    tl.store(grad_input + at, grad, mask=exists)


class _Route(NamedTuple):
    """The constants of one axis of the backward: windows that hold an element are `place_step` places apart."""

    common: int
    place_step: int
    inverse: int
    steps: int  # the most windows that hold one element

    @classmethod
    def of(cls, places: int, stride: int, dilation: int) -> "_Route":
        common = math.gcd(stride, dilation)
        place_step = stride // common
        inverse = pow(dilation // common, -1, place_step) if place_step > 1 else 0
        return cls(common, place_step, inverse, -(-places // place_step))


def _cut(geometry: Pool2dGeometry) -> Pool2dGeometry:
    """Strides and dilations that step over all of the input, cut to the shortest that does: places and windows beyond
    the first fall outside either way, and no product of coordinates overflows."""
    reach_h, reach_w = geometry.h + geometry.pad_h, geometry.w + geometry.pad_w
    return geometry._replace(
        stride_h=min(geometry.stride_h, reach_h),
        stride_w=min(geometry.stride_w, reach_w),
        dilation_h=min(geometry.dilation_h, reach_h),
        dilation_w=min(geometry.dilation_w, reach_w),
    )


def _small(g: Pool2dGeometry) -> bool:
    """Does whatever is computed of coordinates stay below 2^31? The backward multiplies two numbers below a stride."""
    rows = g.h + g.pad_h + g.p * g.stride_h + g.r * g.dilation_h
    columns = g.w + g.pad_w + g.q * g.stride_w + g.s * g.dilation_w
    return max(rows, columns, g.stride_h**2, g.stride_w**2) < 2**31


class _Work(NamedTuple):
    """One launch: a slice of the batch, and how the tensor [images, rows, columns, channels] is tiled."""

    tensors: tuple[Tensor, ...]
    images: int
    channels: int
    programs: int
    constants: dict[str, bool | int]


def _work(tensors: tuple[Tensor, ...], layout: Layout, rows: int, columns: int, small: bool = True) -> Iterator[_Work]:
    """Slices of a batch, each within 32-bit arithmetic. `rows` x `columns` is what the kernel writes."""
    nhwc = layout is Layout.NHWC
    n, channels = tensors[0].shape[:2]
    if not nhwc:
        n, channels = n * channels, 1
    image = max(t.numel() for t in tensors) // n
    fit = LARGEST_INDEX // image if small else 0
    wide = fit == 0
    for first in range(0, n, fit or n):
        images = min(fit or n, n - first)
        part = tensors
        if images < n:
            part = tuple((t if nhwc else t.view(-1, *t.shape[2:])).narrow(0, first, images) for t in tensors)
        if nhwc:
            b = min(triton.next_power_of_2(channels), 256)
            a = TILE // b
            programs = triton.cdiv(images * rows * columns, a) * triton.cdiv(channels, b)
        else:
            b = min(triton.next_power_of_2(rows * columns), 256)
            a = min(TILE // b, triton.next_power_of_2(images))
            programs = triton.cdiv(images, a) * triton.cdiv(rows * columns, b)
        constants = {"NHWC": nhwc, "A": a, "B": b, "WIDE": wide, "num_warps": NUM_WARPS}
        yield _Work(part, images, channels, programs, constants)


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def max_pool2d_forward(input: Tensor, output: Tensor, argmax: Tensor, geometry: Pool2dGeometry, layout: Layout) -> None:
    """Writes every window's maximum and its place r * S + s."""
    g = _cut(geometry)
    with _on(input):
        for work in _work((input, output, argmax), layout, g.p, g.q, _small(g)):
            forward_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, g.h, g.w, g.p, g.q, *g[8:],
                R=g.r, S=g.s, UNROLLED=g.r * g.s <= UNROLL, **work.constants,
            )  # fmt: skip


def max_pool2d_backward(
    grad_output: Tensor, argmax: Tensor, grad_input: Tensor, geometry: Pool2dGeometry, layout: Layout
) -> None:
    """Writes every gradient of the input: the sum of grad_output over the windows the element won."""
    g = _cut(geometry)
    rows, columns = _Route.of(g.r, g.stride_h, g.dilation_h), _Route.of(g.s, g.stride_w, g.dilation_w)
    with _on(grad_output):
        for work in _work((grad_output, argmax, grad_input), layout, g.h, g.w, _small(g)):
            backward_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, g.h, g.w, g.p, g.q, *g[8:],
                rows.common, columns.common, rows.place_step, columns.place_step, rows.inverse, columns.inverse,
                R=g.r, S=g.s, ROWS=rows.steps, COLUMNS=columns.steps,
                UNROLLED=rows.steps * columns.steps <= UNROLL, **work.constants,
            )  # fmt: skip


def max_pool2d_gather(input: Tensor, argmax: Tensor, output: Tensor, geometry: Pool2dGeometry, layout: Layout) -> None:
    """Writes the input at every window's winner, 0 for a window with no place inside: the backward's derivative."""
    g = _cut(geometry)
    with _on(input):
        for work in _work((input, argmax, output), layout, g.p, g.q, _small(g)):
            gather_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, g.h, g.w, g.p, g.q, *g[8:], S=g.s, **work.constants
            )


def max_pool2d_indices(argmax: Tensor, indices: Tensor, geometry: Pool2dGeometry, layout: Layout) -> None:
    """Writes PyTorch's index h * W + w of every window's winner."""
    g = geometry
    with _on(argmax):
        for work in _work((argmax, indices), layout, g.p, g.q):
            indices_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, g.w, g.p, g.q, *g[8:], S=g.s, **work.constants
            )


def max_unpool2d_forward(input: Tensor, indices: Tensor, winner: Tensor, output: Tensor, layout: Layout) -> None:
    """Writes input where the indices say and 0 elsewhere; of several the last wins. `winner` holds zeros on entry.

    Raises:
        ValueError: for an input plane of more than 2^31 - 2 elements, whose positions `winner` can not hold.
    """
    (p, q), (h, w) = input.shape[2:], output.shape[2:]
    if p * q >= 2**31 - 1:
        raise ValueError(f"max_unpool2d: an input plane of {p} x {q} has more than 2^31 - 2 elements")
    with _on(input):
        for work in _work((indices, winner), layout, p, q):
            unpool_scatter_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, p, q, h * w, **work.constants
            )
        for work in _work((input, winner, output), layout, h, w):
            unpool_forward_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, h, w, p * q, **work.constants
            )


def max_unpool2d_backward(grad_output: Tensor, indices: Tensor, grad_input: Tensor, layout: Layout) -> None:
    """Writes grad_output at the indices, 0 for an index outside."""
    (p, q), (h, w) = indices.shape[2:], grad_output.shape[2:]
    with _on(grad_output):
        for work in _work((grad_output, indices, grad_input), layout, p, q):
            unpool_backward_kernel[(work.programs,)](
                *work.tensors, work.images, work.channels, p, q, h * w, **work.constants
            )
