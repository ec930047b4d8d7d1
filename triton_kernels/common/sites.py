"""How the elements of a tensor are spread over programs: csrc/common/sites.h in Triton.

A tile is [A, B] elements, B of them side by side in memory. There is one addressing scheme, NHWC: a dense NCHW tensor
is an NHWC tensor of N * C images with one channel each. The layouts differ in what the two axes of a tile are:

    NHWC   A pixels (n, p, q) x B channels       index arithmetic once a pixel
    NCHW   A images n * C + c x B pixels (p, q)   index arithmetic once a pixel, shared by all images
"""

from collections.abc import Iterator
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ...geometry import Layout
from .types import LARGEST_INDEX, as_wide

# Elements of a tile: 8 a thread where they are adjacent channels, else half as many. In Triton's interpreter a program
# costs more than its elements do.
TILE = 4096 if triton.knobs.runtime.interpret else 1024
NUM_WARPS = 4


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
    pid, images, rows, columns, channels = as_wide((pid, images, rows, columns, channels), WIDE)
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


class Work(NamedTuple):
    """One launch: a slice of the batch, and how the tensor [images, rows, columns, channels] is tiled."""

    tensors: tuple[Tensor, ...]
    images: int
    channels: int
    programs: int
    constants: dict[str, bool | int]


def work(
    tensors: tuple[Tensor, ...],
    layout: Layout,
    rows: int,
    columns: int,
    small: bool = True,
    elements: int | None = None,
) -> Iterator[Work]:
    """Slices of a batch, each within 32-bit arithmetic; of 64-bit arithmetic, in one, where images are larger. `rows` x
    `columns` is what the kernel writes; `elements` of a program, for NHWC alone, if others than usual."""
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
            a = max(1, (elements or (TILE if b >= 8 else TILE // 2)) // b)
            programs = triton.cdiv(images * rows * columns, a) * triton.cdiv(channels, b)
        else:
            b = min(triton.next_power_of_2(rows * columns), 256)
            a = min(TILE // 2 // b, triton.next_power_of_2(images))
            programs = triton.cdiv(images, a) * triton.cdiv(rows * columns, b)
        constants = {"NHWC": nhwc, "A": a, "B": b, "WIDE": wide, "num_warps": NUM_WARPS}
        yield Work(part, images, channels, programs, constants)
