"""A trial: calls of kernels on a small problem of exact numbers, and the results that they must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..geometry import Layout

Results = Iterator[tuple[Tensor, Tensor]]  # found and expected


class Trial(NamedTuple):
    """`call(kernels, device)` runs it. `anywhere`: also on tensors that begin at no multiple of 16 bytes."""

    name: str
    call: Callable[[Any, str], Results]
    anywhere: bool = True


class Operands:
    """Puts operands and outputs where kernels take them."""

    def __init__(self, device: str, dtype: torch.dtype, layout: Layout) -> None:
        self.device = device
        self.dtype = dtype
        self.layout = layout

    def put(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        there = tensor.to(dtype or self.dtype).to(self.device)
        return dense(there, self.layout) if there.dim() == 4 else there.contiguous()

    def empty(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Filled with what no kernel may leave behind."""
        of = dtype or self.dtype
        return self.put(torch.full(tuple(shape), float("nan") if of.is_floating_point else 113, dtype=of), of)


def dense(tensor: Tensor, layout: Layout) -> Tensor:
    """A copy that is dense in a layout also where extents of 1 leave the choice open."""
    if layout is Layout.NCHW:
        return tensor.clone(memory_format=torch.contiguous_format)
    n, c, h, w = tensor.shape
    memory = tensor.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    return memory.as_strided((n, c, h, w), (h * w * c, 1, w * c, c))


def difference(found: Tensor, expected: Tensor) -> str:
    """Where a result is not what it must be, and how many elements are not; empty where all are."""
    ours, theirs = found.cpu(), expected.to(found.dtype).cpu()
    if ours.dtype in (torch.uint16,):
        ours, theirs = ours.int(), theirs.int()
    wrong = ours.ne(theirs)
    if ours.is_floating_point():
        wrong &= ~(ours.isnan() & theirs.isnan())
    if not wrong.any():
        return ""
    place = tuple(int(each[0]) for each in wrong.nonzero(as_tuple=True))
    return (
        f"{int(wrong.sum())} of {wrong.numel()} elements are wrong, the first at {list(place)}: "
        f"{ours[place].item()} where {theirs[place].item()} is right"
    )
