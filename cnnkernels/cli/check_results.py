"""What `cnnkernels check` holds a result to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..geometry import Layout
from ..testing.numerics import rounding_bound


class Measurement(NamedTuple):
    """One result beside the truth: the error and the allowed error where the two come closest (or furthest apart)."""

    kernel: str
    type: str
    error: float
    allowed: float

    @property
    def ratio(self) -> float:
        """At most 1 where the result is right."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.allowed if self.allowed else math.inf if self.error else 0.0


class Target(NamedTuple):
    """The kernels under test, as `backends.kernels` gives them, and where their tensors live."""

    kernels: Any
    device: str

    def place(self, tensor: Tensor, layout: Layout) -> Tensor:
        return tensor.to(self.device).contiguous(memory_format=layout.memory_format)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, layout: Layout) -> Tensor:
        """Filled with what no kernel may leave behind."""
        value = math.nan if dtype.is_floating_point else 113
        return self.place(torch.full(tuple(shape), value, dtype=dtype), layout)


class Expected(NamedTuple):
    """What a result is held to: the fp64 truth, PyTorch's own result in the type, and |a| · |b| summed in fp64."""

    truth: Tensor
    theirs: Tensor
    magnitude: Tensor
    reduction: int

    def bound(self, dtype: torch.dtype, tf32: bool) -> Tensor:
        bound = rounding_bound(self.truth, self.theirs, self.reduction, self.magnitude, dtype, tf32)
        # The truth is a sum in fp64 itself: two such sums may each be off by the bound.
        return 2 * bound if dtype is torch.float64 else bound


def measure(kernel: str, kind: str, actual: Tensor, truth: Tensor, bound: Tensor | None = None) -> Measurement:
    """The element of `actual` that uses most of its allowance; without a bound it has none."""
    error = (actual.cpu().double() - truth.cpu().double()).abs().flatten()
    if not error.numel():
        return Measurement(kernel, kind, 0.0, 0.0)
    allowed = torch.zeros_like(error) if bound is None else bound.cpu().expand(actual.shape).flatten()
    ratio = torch.where(error == 0, 0.0, torch.where(error.isnan(), math.inf, error / allowed))
    # Where nothing errs, the largest allowance tells more than the first.
    worst = int(ratio.argmax() if ratio.max() > 0 else allowed.argmax())
    return Measurement(kernel, kind, error[worst].item(), allowed[worst].item())


def random_numbers(shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(dtype)
