"""adaptive_avg_pool2d to one pixel in Triton: a sum of whole planes, in two levels.

A program has A planes and takes B pixels of each at a time. A large plane is cut into parts, whose sums lie in a
workspace, and the same kernel adds those. Tiles and parts are functions of the layer alone, so the order of a sum is.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...geometry import Layout
from ..common.activation import divide
from ..common.sums import sum_along
from ..common.target import on
from ..common.types import accumulator, narrow
from .elements import widen

# Pixels of a part at most, and the longer side of a tile, along what is adjacent in memory, and the other.
PART = 4096
LONG, SHORT = 64, 16


@triton.jit
def sum_planes_kernel(
    input,
    output,
    planes,
    channels,
    pixels,
    parts,
    length,
    divisor,
    NHWC: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """output [images, parts, channels] = sum of input [images, pixels, channels] over the pixels of a part / divisor;
    `planes` counts the former's elements, `length` is a part's."""
    element: tl.constexpr = output.dtype.element_ty
    pid = tl.program_id(0).to(tl.int64)
    plane = pid * A + tl.arange(0, A)
    channel = plane % channels
    part = plane // channels % parts
    first = plane // channels // parts * pixels
    begin = part * length
    end = tl.minimum(begin + length, pixels)
    sums = tl.zeros([A, B], accumulator(element))
    for start in range(0, length, B):
        pixel = (begin + start)[:, None] + tl.arange(0, B)[None, :]
        exists = (plane < planes)[:, None] & (pixel < end[:, None])
        at = (first[:, None] + pixel) * channels + channel[:, None]
        sums += widen(tl.load(input + at, mask=exists, other=0))
    mean = divide(sum_along(sums, 1), tl.zeros([A], sums.dtype) + divisor)
    tl.store(output + plane, narrow(mean, element), mask=plane < planes)


def _sum(input: Tensor, output: Tensor, sizes: tuple[int, int, int], parts: int, divisor: int, nhwc: bool) -> None:
    images, pixels, channels = sizes
    a, b = (LONG, SHORT) if nhwc else (SHORT, LONG)
    planes = images * parts * channels
    sum_planes_kernel[(triton.cdiv(planes, a),)](
        input, output, planes, channels, pixels, parts, -(-pixels // parts), divisor,
        NHWC=nhwc, A=a, B=b, num_warps=4,
    )  # fmt: skip


def global_avg_pool_forward(input: Tensor, output: Tensor, layout: Layout) -> None:
    """Writes the mean of each plane."""
    n, c, h, w = input.shape
    nhwc = layout is Layout.NHWC
    images, channels = (n, c) if nhwc else (n * c, 1)
    pixels = h * w
    parts = triton.cdiv(pixels, PART)
    with on(input):
        if parts == 1:
            _sum(input, output, (images, pixels, channels), 1, pixels, nhwc)
            return
        sums = torch.empty(
            images * parts * channels,
            dtype=torch.float64 if input.dtype is torch.float64 else torch.float32,
            device=input.device,
        )
        _sum(input, sums, (images, pixels, channels), parts, 1, nhwc)
        _sum(sums, output, (images, parts, channels), 1, pixels, nhwc)
