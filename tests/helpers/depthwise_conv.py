"""What the tests of depthwise_conv2d's CUDA kernels share: one direction over chosen memory by a chosen plan."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from helpers.conv import ELEMENTS, DirectionsRunner, Place, integers
from helpers.native import aligned_copy

TYPES = {name: ELEMENTS[name][:2] for name in ("fp64", "fp32", "fp16", "bf16")}


def aligned(flat: Tensor) -> Tensor:
    """Memory as PyTorch's allocator for GPUs gives it."""
    raw = flat.contiguous().view(torch.uint8)
    return aligned_copy(raw).view(flat.dtype)


class DepthwiseRunner(DirectionsRunner):
    """depthwise_conv2d's launchers."""

    operator = "depthwise_conv"

    def kind(self, element: str, layout: Layout) -> tuple[int, ...]:
        return TYPES[element][1], int(layout)

    def workspace(self, flat: Tensor, place: Place) -> Tensor:
        """Aligned even where the tensors are not: torch allocates it."""
        return aligned(flat)

    def plan(self, direction: str, case: ConvCase, layout: Layout, element: str, **changes: int) -> Any:
        """What the selection would do, but for some changes."""
        which = getattr(self.module.DepthwiseConvDirection, direction)
        plan = self.module.depthwise_conv_plan(which, TYPES[element][1], int(layout), self.geometry(case))
        for name, value in changes.items():
            setattr(plan, name, value)
        return plan

    def run(
        self,
        direction: str,
        case: ConvCase,
        layout: Layout,
        element: str,
        operands: tuple[Tensor, Tensor],
        plan: Any = None,
        bias: Tensor | None = None,
        place: Place = aligned,
    ) -> Tensor:
        return super().run(direction, case, layout, element, operands, plan, bias, place)


@functools.cache
def right(direction: str, case: ConvCase) -> Tensor:
    return integers(case).expected(direction, case)


def check(
    runner: DepthwiseRunner, direction: str, case: ConvCase, layout: Layout, element: str, plan: Any, **how
) -> None:
    data = integers(case)
    bias = data.b if direction == "forward" else None
    expected = right(direction, case) + (0 if bias is None else bias.view(-1, 1, 1))
    result = runner.run(direction, case, layout, element, data.operands(direction), plan, bias, **how)
    assert torch.equal(result, expected.to(result.dtype)), plan
