"""max_unpool2d in Triton: values go back to where their indices say, zeros elsewhere.

Two windows may name one element. The scatter therefore moves positions, not values: an integer maximum keeps the last
window's, whatever order the programs run in, and a gather then fetches that window's value.
"""

import triton
import triton.language as tl
from torch import Tensor

from ...geometry import Layout
from ..common.sites import offset, tile, work
from ..common.target import on


@triton.jit
def scatter_kernel(
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
def forward_kernel(
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
def backward_kernel(
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


def max_unpool_forward(input: Tensor, indices: Tensor, winner: Tensor, output: Tensor, layout: Layout) -> None:
    """Writes input where the indices say and 0 elsewhere; of several the last wins. `winner` holds zeros on entry, and
    an input plane has at most 2^31 - 2 elements, whose positions it can hold."""
    (p, q), (h, w) = input.shape[2:], output.shape[2:]
    with on(input):
        for part in work((indices, winner), layout, p, q):
            scatter_kernel[(part.programs,)](*part.tensors, part.images, part.channels, p, q, h * w, **part.constants)
        for part in work((input, winner, output), layout, h, w):
            forward_kernel[(part.programs,)](*part.tensors, part.images, part.channels, h, w, p * q, **part.constants)


def max_unpool_backward(grad_output: Tensor, indices: Tensor, grad_input: Tensor, layout: Layout) -> None:
    """Writes grad_output at the indices, 0 for an index outside."""
    (p, q), (h, w) = indices.shape[2:], grad_output.shape[2:]
    with on(grad_output):
        for part in work((grad_output, indices, grad_input), layout, p, q):
            backward_kernel[(part.programs,)](*part.tensors, part.images, part.channels, p, q, h * w, **part.constants)
