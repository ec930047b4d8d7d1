"""x becomes y in Triton: one read of x, and of a residual, and one write."""

import triton
import triton.language as tl
from torch import Tensor

from ...activation import ACTIVATIONS
from ..common.activation import activate
from ..common.target import on
from ..common.types import accumulator, narrow
from .numbers import scaling
from .tiles import owned, places, plan_of, steps_of


@triton.jit
def normalize_kernel(
    input, residual, output, mean, var, weight, bias, outer, channels, inner, length, parts,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACTIVATION: tl.constexpr,
    ADJACENT: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    element: tl.constexpr = accumulator(input.dtype.element_ty)
    part, channel, channel_exists = owned(channels, parts, A)
    begin, end = steps_of(part, length, outer, inner, B, ADJACENT)
    center, scale, shift = scaling(mean, var, weight, bias, channel, channel_exists, EPS, element)
    for step in range(begin, end):
        at, exists = places(step, channel, channel_exists, outer, channels, inner, B, ADJACENT)
        x = tl.load(input + at, mask=exists, other=0.0).to(element)
        z = (x - center[:, None]) * scale[:, None] + shift[:, None]
        if residual is not None:
            z += tl.load(residual + at, mask=exists, other=0.0).to(element)
        y = activate(z, SLOPE, ACTIVATION)
        tl.store(output + at, narrow(y, output.dtype.element_ty), mask=exists)


def batch_norm_normalize(
    input: Tensor,
    residual: Tensor | None,
    output: Tensor,
    numbers: tuple[Tensor | None, ...],
    eps: float,
    activation: int,
    slope: float,
    sizes: tuple[int, int, int],
) -> None:
    plan = plan_of(sizes)
    with on(input):
        normalize_kernel[plan.grid](
            input, residual, output, *numbers, *plan[:5],
            EPS=eps, SLOPE=slope, ACTIVATION=ACTIVATIONS[activation],
            ADJACENT=plan.inner == 1, A=plan.A, B=plan.B, num_warps=4,
        )  # fmt: skip
