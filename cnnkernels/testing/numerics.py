"""What a kernel's result is compared with, and what it may differ by.

Two kinds of test, and no tolerance typed by hand:

- exact: small integers, so that every order of summation gives the same bits; equality.
- rounding: random floats; the error against fp64 at most twice the error of PyTorch's own operator in the same
  dtype, plus a floor from the true length of the reduction.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import ConvCase

# Half the distance from 1 to the next number: the largest relative error of one rounding.
UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}
TF32_ROUNDOFF = 2.0**-11


def convolve(direction: str, case: ConvCase, first: Tensor, second: Tensor) -> Tensor:
    """One direction by PyTorch, in the operands' type."""
    top, bottom, left, right = case.padding

    def forward(x: Tensor, w: Tensor) -> Tensor:
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, w, stride=case.stride, dilation=case.dilation, groups=case.groups)

    if direction == "forward":
        return forward(first, second)
    if direction == "backward_input":
        x = first.new_zeros(case.input_shape).requires_grad_()
        return torch.autograd.grad(forward(x, second), x, first)[0]
    w = first.new_zeros(case.weight_shape).requires_grad_()
    return torch.autograd.grad(forward(second, w), w, first)[0]


def small_integers(shape: tuple[int, ...], dtype: torch.dtype, seed: int, bound: int = 2) -> Tensor:
    """Integers in [-bound, bound]: sums of products stay exact in every type's accumulator."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-bound, bound + 1, shape, generator=generator).to(dtype)


def rounding_bound(
    ours_reference: Tensor,
    theirs: Tensor,
    reduction: int,
    magnitude: Tensor,
    dtype: torch.dtype,
    tf32: bool = False,
) -> Tensor:
    """The allowed error, elementwise.

    Twice the largest error of PyTorch's own result `theirs` against the fp64 result `ours_reference`, plus a floor:
    accumulating `reduction` products of total magnitude `magnitude` (the fp64 sum of |a b|) in the accumulator's
    precision errs like sqrt(reduction) u |a b| on average, and the store rounds once in `dtype`.
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1 and 2.8 (the rule of thumb).
    """
    reference = ours_reference.double()
    accumulate = UNIT_ROUNDOFF[torch.float64 if dtype is torch.float64 else torch.float32]
    operand = TF32_ROUNDOFF if tf32 else 0.0
    floor = magnitude.double() * (math.sqrt(max(reduction, 1)) * accumulate + 2 * operand)
    store = reference.abs() * UNIT_ROUNDOFF[dtype]
    theirs_error = (theirs.double() - reference).abs().max() if theirs.numel() else reference.new_zeros(())
    return 2 * theirs_error + floor + store


def assert_within(actual: Tensor, reference: Tensor, bound: Tensor, what: str) -> None:
    """Fails with the worst element, its error and its bound."""
    error = (actual.double() - reference.double()).abs()
    excess = error - bound
    excess = torch.where(error.isnan(), torch.full_like(excess, math.inf), excess)
    if excess.numel() and excess.max() > 0:
        worst = torch.unravel_index(excess.argmax(), excess.shape)
        place = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{what}: at {place} got {actual[place].item()!r}, fp64 says {reference[place].item()!r}, "
            f"error {error[place].item():.3e} > allowed {bound.expand_as(error)[place].item():.3e}"
        )
