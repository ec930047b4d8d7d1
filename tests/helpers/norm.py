"""What a batch norm in fp32 may differ by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnnkernels.testing.numerics import assert_within, rounding_bound


def assert_rounds_as_pytorch(
    found: Sequence[Tensor], true: Sequence[Tensor], theirs: Sequence[Tensor], summed: int, what: str
) -> None:
    """`found` and PyTorch's `theirs` in fp32 beside `true` in fp64, made by sums of `summed` elements of a channel."""
    largest = max((float(t.abs().max()) for t in true if t.numel()), default=0.0)
    for ours, exact, other in zip(found, true, theirs, strict=True):
        assert ours.shape == exact.shape and ours.dtype is other.dtype
        if ours.is_floating_point():
            bound = rounding_bound(exact, other, summed, torch.full_like(exact, largest), torch.float32)
            assert_within(ours, exact, bound, what)
        else:
            assert torch.equal(ours, exact), what
