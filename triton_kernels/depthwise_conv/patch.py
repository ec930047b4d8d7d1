"""What the depthwise kernels share: how a patch of pixels meets the taps, and how its rows are read.

A lane of a tile owns a patch of pixels and walks over it in registers; a tile is [A, B] lanes, neighbours in memory
along B:

    NHWC   A patches (n, i, j) x B channels         a lane reads a pixel's channel, a thread 16 bytes of them
    NCHW   A planes (n, c) x B patches (i, j)       a lane reads 16 bytes of a row, taken apart in registers

So a patch's halo is read once and used from registers, and which tap an element meets is known when the kernel is
compiled: padding, strides and dilations are constants.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import triton
import triton.language as tl

from ..common.tiles import image_offset
from ..common.types import as_wide, indices


@dataclass(frozen=True)
class Axis:
    """How patches of one axis meet the taps, at compile time.

    A patch writes the places [i patch, (i + 1) patch). Forward, the place o of it reads o stride - pad + r dilation
    from where the patch starts to read, `step` further for each patch. Backward the roles are turned: o reads the x
    with x stride - pad + r dilation = o, if there is one. As strides divide backward patches, a tap meets the same
    places of every patch: the phases of a strided gradient, without a product by zero and side by side in one patch.
    """

    patch: int
    taps: int
    stride: int
    pad: int
    dilation: int
    backward: bool
    chunk: int = 1  # places that are read at once, from a multiple of their number on

    @property
    def step(self) -> int:
        return self.patch // self.stride if self.backward else self.patch * self.stride

    def meets(self, place: int) -> tuple[tuple[int, int], ...]:
        """What a place of the patch reads, ascending, and the tap of each."""
        if not self.backward:
            return tuple((place * self.stride - self.pad + r * self.dilation, r) for r in range(self.taps))
        reached = [(place + self.pad - r * self.dilation, r) for r in reversed(range(self.taps))]
        return tuple((x // self.stride, r) for x, r in reached if x % self.stride == 0)

    @functools.cached_property
    def read(self) -> tuple[int, ...]:
        """Everything that the patch reads, ascending."""
        return tuple(sorted({x for place in range(self.patch) for x, _ in self.meets(place)}))

    @functools.cached_property
    def chunks(self) -> tuple[int, ...]:
        return tuple(sorted({x // self.chunk for x in self.read}))

    @functools.cached_property
    def products(self) -> int:
        return sum(len(self.meets(place)) for place in range(self.patch))

    @property
    def distance(self) -> tuple[int, int]:
        """From what a place reads to what it reads next, and from tap to tap."""
        if not self.backward:
            return self.dilation, 1
        common = math.gcd(self.dilation, self.stride)
        return self.dilation // common, -(self.stride // common)


@triton.constexpr_function
def step(axis):
    return axis.step


@triton.constexpr_function
def reads(axis):
    """How many places a patch reads."""
    return len(axis.read)


@triton.constexpr_function
def read_at(axis, index):
    return axis.read[index]


@triton.constexpr_function
def tap_of(axis, place, index):
    """The tap by which a place of the patch meets what read_at names, or -1."""
    return dict(axis.meets(place)).get(axis.read[index], -1)


@triton.constexpr_function
def meetings(axis, place):
    """How many taps a place of the patch has."""
    return len(axis.meets(place))


@triton.constexpr_function
def first_read(axis, place):
    return axis.meets(place)[0][0]


@triton.constexpr_function
def next_read(axis):
    return axis.distance[0]


@triton.constexpr_function
def first_tap(axis, place):
    return axis.meets(place)[0][1]


@triton.constexpr_function
def next_tap(axis):
    return axis.distance[1]


@triton.constexpr_function
def chunks(axis):
    """How many chunks a patch reads."""
    return len(axis.chunks)


@triton.constexpr_function
def chunk_at(axis, index):
    return axis.chunks[index] * axis.chunk


@triton.constexpr_function
def column_of(axis, place, tap):
    """Which of read_row's columns a place meets by a tap, or -1."""
    for x, r in axis.meets(place):
        if r == tap:
            return axis.chunks.index(x // axis.chunk) * axis.chunk + x % axis.chunk
    return -1


@triton.jit
def replaced(items, INDEX: tl.constexpr, value):
    return items[:INDEX] + (value,) + items[INDEX + 1 :]  # noqa: RUF005 - Triton knows no stars


@triton.jit
def zeros(COUNT: tl.constexpr, A: tl.constexpr, B: tl.constexpr, element: tl.constexpr):
    """A tuple of tiles."""
    totals = ()
    for _ in tl.static_range(COUNT):
        totals += (tl.zeros((A, B), element),)
    return totals


@triton.jit
def unpacked(x):
    """The elements of the last axis of [A, B, 1 | 2 | 4 | 8], a tuple of tiles. They lie in one thread's registers."""
    A: tl.constexpr = x.shape[0]
    B: tl.constexpr = x.shape[1]
    COUNT: tl.constexpr = x.shape[2]
    if COUNT == 2:
        return tl.split(x)
    elif COUNT == 4:
        even, odd = tl.split(tl.reshape(x, (A, B, 2, 2)))
        x0, x2 = tl.split(even)
        x1, x3 = tl.split(odd)
        return x0, x1, x2, x3
    else:
        even, odd = tl.split(tl.reshape(x, (A, B, 4, 2)))
        x0, x2, x4, x6 = unpacked(even)
        x1, x3, x5, x7 = unpacked(odd)
        return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def packed(items, FIRST: tl.constexpr, STEP: tl.constexpr, COUNT: tl.constexpr):
    """The inverse of unpacked, of COUNT items from FIRST on, STEP apart."""
    A: tl.constexpr = items[0].shape[0]
    B: tl.constexpr = items[0].shape[1]
    if COUNT == 2:
        return tl.join(items[FIRST], items[FIRST + STEP])
    else:
        even = packed(items, FIRST, 2 * STEP, COUNT // 2)
        odd = packed(items, FIRST + STEP, 2 * STEP, COUNT // 2)
        return tl.reshape(tl.join(even, odd), (A, B, COUNT))


@triton.jit
def sizes_of_patches(sizes, UNIT: tl.constexpr, CHUNK: tl.constexpr, STORE: tl.constexpr, WIDE: tl.constexpr):
    """N, C, H, W of what is read and K, P, Q of what is written, whose channels count UNITs, and columns CHUNKs and
    STOREs (select.py, Plan.sizes)."""
    N, C, H, W, K, P, Q = as_wide(sizes, WIDE)
    return N, C * UNIT, H, W * CHUNK, K * UNIT, P, Q * STORE


@triton.jit
def lanes(N, C, rows, columns, NHWC: tl.constexpr, A: tl.constexpr, B: tl.constexpr, WIDE: tl.constexpr):
    """This program's lanes over N images of C channels and rows x columns patches: image, patch, channel, which
    exist, and which of them have a channel."""
    pid = tl.program_id(0)
    rows, columns = as_wide((rows, columns), WIDE)
    patches = rows * columns
    if NHWC:
        across = tl.cdiv(C, B)
        index = indices(pid // across, A, WIDE)[:, None]
        c = indices(pid % across, B, WIDE)[None, :]
        n, patch = index // patches, index % patches
        exists = (n < N) & (c < C)
    else:
        across = tl.cdiv(patches, B)
        index = indices(pid // across, A, WIDE)[:, None]
        patch = indices(pid % across, B, WIDE)[None, :]
        n, c = index // C, index % C
        exists = (n < N) & (patch < patches)
    return n, patch // columns, patch % columns, c, exists


@triton.jit
def load_shifted(pointers, exists, zero_point):
    """Numbers as they lie in memory; bytes as int32, less the zero point where there is one. 0 where nothing exists."""
    x = tl.load(pointers, mask=exists, other=0.0)
    if x.dtype.is_int():
        x = x.to(tl.int32)
        if zero_point is not None:
            x = tl.where(exists, x - tl.cast(zero_point, tl.int32), 0)
    return x


@triton.jit
def read_row(image, zero_point, n, h, w, c, exists, H, W, C, AXIS: tl.constexpr, NHWC: tl.constexpr):
    """The columns of AXIS's chunks in the row h from the column w on, a tuple of tiles; zeros outside of the image."""
    CHUNK: tl.constexpr = AXIS.chunk
    row_exists = exists & ((h >= 0) & (h < H))
    at_row = image + image_offset(n, h, w, c, H, W, C, NHWC)
    columns = ()
    for i in tl.static_range(chunks(AXIS)):
        column = w + chunk_at(AXIS, i)
        inside = row_exists & ((column >= 0) & (column < W))
        at = at_row + chunk_at(AXIS, i) * (C if NHWC else 1)
        if CHUNK == 1:
            columns += (load_shifted(at, inside, zero_point),)
        else:
            at = at[:, :, None] + tl.arange(0, CHUNK)[None, None, :]
            columns += unpacked(tl.load(at, mask=inside[:, :, None], other=0.0))
    return columns
