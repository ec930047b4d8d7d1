"""What the tests of depthwise_conv2d's CUDA kernels share: one direction over chosen memory by a chosen plan."""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import torch
from conv2d_helpers import ELEMENTS, Place, from_memory, in_memory, integers, result_shape
from native_tests import aligned_copy
from torch import Tensor

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import Conv2dCase

TYPES = {name: ELEMENTS[name][:2] for name in ("fp64", "fp32", "fp16", "bf16")}


def aligned(flat: Tensor) -> Tensor:
    """Memory as PyTorch's allocator for GPUs gives it."""
    raw = flat.contiguous().view(torch.uint8)
    return aligned_copy(raw).view(flat.dtype)


class Machine:
    """The native module's launchers, on the interpreter or a GPU."""

    def __init__(self, module: ModuleType, device: str) -> None:
        self.module = module
        self.device = device

    def geometry(self, case: Conv2dCase) -> Any:
        return self.module.Conv2dGeometry(*case.geometry)

    def plan(self, direction: str, case: Conv2dCase, layout: Layout, element: str, **changes: int) -> Any:
        """What the selection would do, but for some changes."""
        which = getattr(self.module.DepthwiseConv2dDirection, direction)
        plan = self.module.depthwise_conv2d_plan(which, TYPES[element][1], int(layout), self.geometry(case))
        for name, value in changes.items():
            setattr(plan, name, value)
        return plan

    def run(
        self,
        direction: str,
        case: Conv2dCase,
        layout: Layout,
        element: str,
        operands: tuple[Tensor, Tensor],
        plan: Any = None,
        bias: Tensor | None = None,
        place: Place = aligned,
    ) -> Tensor:
        """The result on the CPU. `place` decides where operands, bias, result and workspace lie."""
        torch_dtype, dtype = TYPES[element]
        geometry, m = self.geometry(case), self.module
        first, second = (place(in_memory(t.to(torch_dtype), layout).to(self.device)) for t in operands)
        shape = result_shape(direction, case)
        result = place(torch.full((math.prod(shape),), float("nan"), dtype=torch_dtype, device=self.device))
        pointers = [first.data_ptr(), second.data_ptr()]
        rest = (dtype, int(layout), geometry, 0, plan)
        if direction == "forward":
            b = None if bias is None else place(bias.to(torch_dtype).to(self.device))
            m.depthwise_conv2d_forward(*pointers, 0 if b is None else b.data_ptr(), result.data_ptr(), *rest)
        elif direction == "backward_input":
            m.depthwise_conv2d_backward_input(*pointers, result.data_ptr(), *rest)
        else:
            size = m.depthwise_conv2d_backward_weight_workspace(dtype, int(layout), geometry, plan)
            workspace = aligned(torch.full((size,), 255, dtype=torch.uint8, device=self.device))
            m.depthwise_conv2d_backward_weight(*pointers, result.data_ptr(), workspace.data_ptr(), *rest)
        return from_memory(result.cpu(), shape, layout)


@functools.cache
def right(direction: str, case: Conv2dCase) -> Tensor:
    return integers(case).expected(direction, case)


def check(machine: Machine, direction: str, case: Conv2dCase, layout: Layout, element: str, plan: Any, **how) -> None:
    data = integers(case)
    bias = data.b if direction == "forward" else None
    expected = right(direction, case) + (0 if bias is None else bias.view(-1, 1, 1))
    result = machine.run(direction, case, layout, element, data.operands(direction), plan, bias, **how)
    assert torch.equal(result, expected.to(result.dtype)), plan
