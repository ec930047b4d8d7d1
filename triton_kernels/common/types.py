"""Types, and the integers that count: what the kernels of all operators are written with."""

from __future__ import annotations

import triton
import triton.language as tl

# What 32-bit arithmetic may meet, with room for a tile's overhang.
LARGEST_INDEX = 2**31 - 2**16

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.constexpr_function
def accumulator(element):
    """The type sums are kept in: fp32 for 16-bit elements, else the element's own."""
    return tl.float64 if element == tl.float64 else tl.float32


@triton.jit
def narrow(x, element: tl.constexpr):
    """A sum rounded once to the nearest element, ties to even."""
    if INTERPRETED and element == tl.bfloat16:
        # Triton's interpreter truncates, so the rounding is written out: add just under half, or half if odd.
        bits = x.to(tl.uint32, bitcast=True)
        odd = (bits >> 16) & 1
        rounded = tl.where(x != x, 0x7FC0, (bits + 0x7FFF + odd) >> 16)
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(element)


@triton.jit
def indices(block, SIZE: tl.constexpr, WIDE: tl.constexpr):
    """The indices of a block of a dimension: 32-bit, or 64-bit where a tensor needs them."""
    if WIDE:
        block = tl.cast(block, tl.int64)
    return block * SIZE + tl.arange(0, SIZE)


@triton.jit
def as_wide(sizes, WIDE: tl.constexpr):
    """Sizes and strides as a kernel computes with them: all of 64 bits if WIDE, and so every product of theirs."""
    if WIDE:
        found = ()
        for i in tl.static_range(len(sizes)):
            found += (tl.cast(sizes[i], tl.int64),)
        return found
    else:
        return sizes


@triton.jit
def load_filled(pointers, exists, fill):
    """The elements that exist, `fill` where none does. It has to be a number of the launch, or computed from one:
    constants of 8 or 16 bits with the highest bit set Triton 3.7 compiles to -1 in all elements of a register but the
    first. Other loads fill with zeros."""
    return tl.load(pointers, mask=exists, other=tl.cast(fill, pointers.dtype.element_ty))


@triton.jit
def along(vector, axis: tl.constexpr):
    """A vector laid along an axis of a tile."""
    if axis == 0:
        return vector[:, None]
    else:
        return vector[None, :]
