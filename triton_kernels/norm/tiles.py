"""Which program has which elements of dense images [outer, channels, inner], csrc/norm/tiling.h in Triton.

A tile is A channels times B pixels. In NHWC, where inner is 1, a step is B rows; else it is B pixels of one row, so
that a tile of small planes is still one piece of memory. A program has A channels and some steps. All are functions of
the shape alone, and so is a sum's order.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

ELEMENTS = 1024  # of a tile
PROGRAMS = 1024  # about as many are started for large images
FEWEST, MOST = 8, 128  # steps of a program


class Plan(NamedTuple):
    outer: int
    channels: int
    inner: int
    length: int  # steps of a part
    parts: int
    A: int
    B: int

    @property
    def grid(self) -> tuple[int]:
        return (triton.cdiv(self.channels, self.A) * self.parts,)


def plan_of(sizes: tuple[int, int, int]) -> Plan:
    outer, channels, inner = sizes
    if inner == 1:
        widest = min(64, triton.next_power_of_2(channels))
        b = max(ELEMENTS // 64, min(triton.next_power_of_2(outer), ELEMENTS // widest))
        a = ELEMENTS // b
        steps = triton.cdiv(outer, b)
    else:
        b = min(triton.next_power_of_2(inner), ELEMENTS)
        a = ELEMENTS // b
        steps = outer * triton.cdiv(inner, b)
    wanted = triton.cdiv(steps * triton.cdiv(channels, a), PROGRAMS)
    length = min(max(wanted, FEWEST), MOST)
    return Plan(outer, channels, inner, length, triton.cdiv(steps, length), a, b)


@triton.jit
def owned(channels, parts, A: tl.constexpr):
    """This program's part, its channels and which of them exist."""
    pid = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(channels, A)
    channel = pid % blocks * A + tl.arange(0, A)
    return pid // blocks, channel, channel < channels


@triton.jit
def steps_of(part, length, outer, inner, B: tl.constexpr, ADJACENT: tl.constexpr):
    """The first step of a part, and the one after its last."""
    rows = tl.full((), outer, tl.int64)  # an extent of 1 is a constant, which has no `to`
    steps = tl.cdiv(rows, B) if ADJACENT else rows * tl.cdiv(inner, B)
    begin = part * length
    return begin, tl.minimum(begin + length, steps)


@triton.jit
def places(step, channel, channel_exists, outer, channels, inner, B: tl.constexpr, ADJACENT: tl.constexpr):
    """Where the elements of a tile lie, and which of them exist."""
    if ADJACENT:
        row = step * B + tl.arange(0, B)
        at = row[None, :] * channels + channel[:, None]
        exists = (row < outer)[None, :] & channel_exists[:, None]
    else:
        pieces = tl.cdiv(inner, B)
        row = step // pieces
        column = step % pieces * B + tl.arange(0, B)
        at = (row * channels + channel)[:, None] * inner + column[None, :]
        exists = (column < inner)[None, :] & channel_exists[:, None]
    return at, exists
