"""Mean and variance of each channel in Triton: one read of x; then parts are merged. csrc/norm/statistics.cu says why
elements are summed less the first of them."""

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.activation import divide
from ..common.sums import sum_along
from ..common.target import on
from ..common.types import accumulator, narrow
from .numbers import number
from .tiles import owned, places, plan_of, steps_of

CHANNELS, SLICES = 16, 64  # of a program that merges


@triton.jit
def statistics_kernel(
    input, counts, means, squares, outer, channels, inner, length, parts,
    ADJACENT: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Of each part and channel: how many elements, their mean, and their squared distances from it in all."""
    element: tl.constexpr = accumulator(input.dtype.element_ty)
    part, channel, channel_exists = owned(channels, parts, A)
    begin, end = steps_of(part, length, outer, inner, B, ADJACENT)
    at, exists = places(begin, channel, channel_exists, outer, channels, inner, B, ADJACENT)
    some = tl.load(input + at, mask=exists, other=0.0).to(element)
    # A lane that begins later takes the tile's first pixel, which is there.
    lane = tl.arange(0, B)[None, :]
    origin = tl.sum(tl.where(lane == 0, some, 0.0), 1)  # exact: the others are zeros
    first = tl.where(exists, some, origin[:, None])
    n = tl.zeros([A, B], element)
    total = tl.zeros([A, B], element)
    square = tl.zeros([A, B], element)
    for step in range(begin, end):
        at, exists = places(step, channel, channel_exists, outer, channels, inner, B, ADJACENT)
        x = tl.load(input + at, mask=exists, other=0.0).to(element)
        moved = tl.where(exists, x - first, 0.0)
        total += moved
        square += moved * moved
        n += tl.where(exists, 1.0, 0.0).to(element)
    some = tl.maximum(n, 1.0)
    shift = divide(total, some)
    mean = first + shift
    rest = square - total * shift
    rest = tl.where(rest < 0, 0.0, rest)
    count = tl.sum(n, 1)  # exact: integers
    of_part = origin + divide(sum_along(tl.where(n > 0, n * (mean - origin[:, None]), 0.0), 1), tl.maximum(count, 1.0))
    apart = mean - of_part[:, None]
    rest = sum_along(tl.where(n > 0, rest + n * apart * apart, 0.0), 1)
    at = part * channels + channel
    tl.store(counts + at, count, mask=channel_exists)
    tl.store(means + at, of_part, mask=channel_exists)
    tl.store(squares + at, rest, mask=channel_exists)


@triton.jit
def merge_statistics_kernel(
    counts, means, squares, mean, var, running_mean, running_var, step, step_rest, channels, parts, count,
    A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    element: tl.constexpr = mean.dtype.element_ty
    channel = tl.program_id(0).to(tl.int64) * A + tl.arange(0, A)
    exists = channel < channels
    n = tl.zeros([A], element) + count
    origin = tl.load(means + channel, mask=exists, other=0.0)
    total = tl.zeros([A, B], element)
    for first in range(0, parts, B):
        part = first + tl.arange(0, B)
        there = (part < parts)[None, :] & exists[:, None]
        at = part.to(tl.int64)[None, :] * channels + channel[:, None]
        weight = tl.load(counts + at, mask=there, other=0.0)
        total += tl.where(there, weight * (tl.load(means + at, mask=there, other=0.0) - origin[:, None]), 0.0)
    center = origin + divide(sum_along(total, 1), n)
    total = tl.zeros([A, B], element)
    for first in range(0, parts, B):
        part = first + tl.arange(0, B)
        there = (part < parts)[None, :] & exists[:, None]
        at = part.to(tl.int64)[None, :] * channels + channel[:, None]
        weight = tl.load(counts + at, mask=there, other=0.0)
        apart = tl.load(means + at, mask=there, other=0.0) - center[:, None]
        more = weight * apart * apart + tl.load(squares + at, mask=there, other=0.0)
        total += tl.where(there, more, 0.0)
    all_squares = sum_along(total, 1)
    tl.store(mean + channel, center, mask=exists)
    tl.store(var + channel, divide(all_squares, n), mask=exists)
    # An argument has fp32's precision: momentum comes as two.
    by = tl.cast(step, element) + tl.cast(step_rest, element)
    kept = 1.0 - by
    if running_mean is not None:
        new = kept * number(running_mean, channel, exists, 0.0, element) + by * center
        tl.store(running_mean + channel, narrow(new, running_mean.dtype.element_ty), mask=exists)
    if running_var is not None:
        unbiased = divide(all_squares, n - 1.0)
        new = kept * number(running_var, channel, exists, 0.0, element) + by * unbiased
        tl.store(running_var + channel, narrow(new, running_var.dtype.element_ty), mask=exists)


def batch_norm_statistics(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    sizes: tuple[int, int, int],
) -> None:
    plan = plan_of(sizes)
    outer, channels, inner, length, parts, a, b = plan
    room = torch.empty(3, parts, channels, dtype=mean.dtype, device=input.device)
    step = struct.unpack("f", struct.pack("f", momentum))[0]
    with on(input):
        statistics_kernel[plan.grid](
            input, *room.unbind(), outer, channels, inner, length, parts, ADJACENT=inner == 1, A=a, B=b, num_warps=4
        )
        merge_statistics_kernel[(triton.cdiv(channels, CHANNELS),)](
            *room.unbind(), mean, var, running_mean, running_var, step, momentum - step, channels, parts, outer * inner,
            A=CHANNELS, B=SLICES, num_warps=4,
        )  # fmt: skip
