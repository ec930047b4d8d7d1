"""Sums that several programs share: each writes its part to a workspace, and a second kernel adds the parts in order.

No atomics: the same bits on every run.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .sums import sum_along
from .types import narrow

# The most that partial sums take.
WORKSPACE_BYTES = 256 * 2**20
# Partial sums added side by side, and elements of a program.
ROWS = 8
BLOCK = 128


@triton.jit
def sum_partials_kernel(
    partials,
    output,
    elements,
    splits,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """output[i] = sum over the splits of partials[split, i]: ROWS interleaved sums in ascending order, then a tree."""
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((ROWS, BLOCK), partials.dtype.element_ty)
    for first in range(0, splits, ROWS):
        split = first + tl.arange(0, ROWS)[:, None]
        exists = (split < splits) & (element < elements)
        total += tl.load(partials + split * elements + element, mask=exists, other=0.0)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(output + element, narrow(sum_along(total, 0), output.dtype.element_ty), mask=element < elements)


def partials(output: Tensor, splits: int) -> Tensor:
    """A workspace for partial sums of a tensor, each laid out as the tensor is; the tensor itself for one."""
    if splits == 1:
        return output
    dtype = torch.float64 if output.dtype is torch.float64 else torch.float32
    return torch.empty(splits * output.numel(), dtype=dtype, device=output.device)


def sum_partials(parts: Tensor, output: Tensor, splits: int) -> None:
    """Writes the sums of what partials() made room for."""
    if splits > 1:
        elements = output.numel()
        sum_partials_kernel[(math.ceil(elements / BLOCK),)](parts, output, elements, splits, ROWS=ROWS, BLOCK=BLOCK)
