"""Sums along an axis of a tile, in an order that its indices define.

tl.sum adds first what a thread holds, then across threads: in the order of a layout, which Triton chooses by what it
knows of pointers and sizes. A tensor that begins at another address, or another batch, could get other bits by it. Of
two numbers there is one sum: so pairs are added, then pairs of sums, each where its numbers lie.
"""

import triton
import triton.language as tl


@triton.constexpr_function
def halvings(size):
    """How often a power of two can be halved."""
    return size.bit_length() - 1


@triton.jit
def sum_along(x, AXIS: tl.constexpr):
    """The sums of a tile [A, B] along an axis: neighbours are added, then neighbouring sums, and so on."""
    if AXIS == 0:
        x = tl.trans(x)
    for _ in tl.static_range(halvings(x.shape[1])):
        x = tl.sum(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)), 2)  # exact: of two numbers
    return tl.reshape(x, (x.shape[0],))
