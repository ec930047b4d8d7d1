"""What the tests of conv2d's CUDA kernels share: running one direction over chosen memory by a chosen plan."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.dtypes import PRODUCTS, dtype_code
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import small_integers
from helpers.native import Runner

# name: (torch's dtype, its number in csrc/common/types.h, tf32)
ELEMENTS = {name: (dtype, dtype_code(dtype), tf32) for name, (dtype, tf32) in PRODUCTS.items()}
DIRECTIONS = ("forward", "backward_input", "backward_weight")

Place = Callable[[Tensor], Tensor]  # copies a flat tensor to memory of its choice


def torch_alloc(flat: Tensor) -> Tensor:
    return flat.clone()


@dataclass(frozen=True)
class Data:
    """Operands in fp64 and what each direction makes of them."""

    x: Tensor
    w: Tensor
    b: Tensor
    dy: Tensor

    def operands(self, direction: str) -> tuple[Tensor, Tensor]:
        return {
            "forward": (self.x, self.w),
            "backward_input": (self.dy, self.w),
            "backward_weight": (self.dy, self.x),
        }[direction]

    def expected(self, direction: str, case: ConvCase) -> Tensor:
        return convolve(direction, case, *self.operands(direction))


def integers(case: ConvCase) -> Data:
    """Small enough that every sum is exact in fp32 and every result in 16 bits."""
    return Data(
        small_integers(case.input_shape, torch.float64, seed=1),
        small_integers(case.weight_shape, torch.float64, seed=2, bound=1),
        small_integers((case.k,), torch.float64, seed=3),
        small_integers(case.output_shape, torch.float64, seed=4, bound=1),
    )


def floats(case: ConvCase, dtype: torch.dtype) -> Data:
    """Random numbers that `dtype` holds, in fp64."""
    generator = torch.Generator().manual_seed(5)
    shapes = (case.input_shape, case.weight_shape, (case.k,), case.output_shape)
    return Data(*(torch.randn(shape, generator=generator).to(dtype).double() for shape in shapes))


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


def not_finite(case: ConvCase, direction: str, which: int) -> tuple[Tensor, Tensor]:
    """Integers that are nowhere zero, but for an infinity or a NaN in operand `which` of each channel or filter, at
    another place in each. Of a group's filters that backward_input sums over, only the first has any."""
    operands = [torch.where(t == 0, 1.0, t) for t in integers(case).operands(direction)]
    odd, values = operands[which], (math.inf, math.nan, -math.inf)
    filters = which == 1 and direction != "backward_weight"
    step = case.k // case.groups if direction == "backward_input" and filters else 1
    for i in range(0, odd.shape[0] if filters else odd.shape[1], step):
        for j in range(odd.shape[1]) if filters and direction == "backward_input" else [i % odd.shape[1]]:
            turn = i * odd.shape[1] + j if filters else i
            row, column = 7 * turn % odd.shape[2], 5 * turn % odd.shape[3]
            odd[i if filters else i % odd.shape[0], j if filters else i, row, column] = values[turn % 3]
    return operands[0], operands[1]


@functools.cache
def not_finite_result(case: ConvCase, direction: str, which: int) -> Tensor:
    return multiplied_out(direction, case, *not_finite(case, direction, which))


def multiplied_out(direction: str, case: ConvCase, first: Tensor, second: Tensor) -> Tensor:
    """convolve, where what lies outside an image, or outside the error, is zeros that taps are multiplied by. PyTorch's
    own operator does so but for backward_input: it gets the error with as many zeros around it as any tap reaches."""
    if direction != "backward_input":
        return convolve(direction, case, first, second)
    g, (top, _, left, _) = case.geometry, case.padding

    def around(size: int, results: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
        return max(0, (dilation * (taps - 1) - pad) // stride + 1), max(0, (size - 1 + pad) // stride - results + 2)

    rows = around(g.h, g.p, g.r, g.stride_h, top, g.dilation_h)
    columns = around(g.w, g.q, g.s, g.stride_w, left, g.dilation_w)
    error = F.pad(first, (*columns, *rows))
    whole = F.conv_transpose2d(error, second, None, case.stride, 0, 0, case.groups, case.dilation)
    h, w = rows[0] * g.stride_h + top, columns[0] * g.stride_w + left
    return whole[:, :, h : h + g.h, w : w + g.w]


def assert_same(result: Tensor, expected: Tensor, what: object = "") -> None:
    """Equality, of NaN too."""
    torch.testing.assert_close(
        result, expected.to(result.dtype), rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


def result_shape(direction: str, case: ConvCase) -> tuple[int, ...]:
    return {
        "forward": case.output_shape,
        "backward_input": case.input_shape,
        "backward_weight": case.weight_shape,
    }[direction]


def in_memory(x: Tensor, layout: Layout) -> Tensor:
    """x's elements, flat, in the order they lie in memory."""
    return (x.permute(0, 2, 3, 1) if layout is Layout.NHWC else x).reshape(-1)


def from_memory(flat: Tensor, shape: tuple[int, ...], layout: Layout) -> Tensor:
    n, c, h, w = shape
    return flat.view(n, h, w, c).permute(0, 3, 1, 2) if layout is Layout.NHWC else flat.view(shape)


class DirectionsRunner(Runner):
    """Runs an operator's three directions."""

    operator = "conv"

    def geometry(self, case: ConvCase) -> Any:
        return self.module.ConvGeometry(*case.geometry)

    def kind(self, element: str, layout: Layout) -> tuple[int, ...]:
        """How the launchers are told of a type and a layout."""
        _, dtype, tf32 = ELEMENTS[element]
        return dtype, int(layout), tf32

    def workspace(self, flat: Tensor, place: Place) -> Tensor:
        return place(flat)

    def workspace_bytes(self, direction: str, kind: tuple[int, ...], geometry: Any, plan: Any, *addresses: int) -> int:
        """What a direction needs beside its tensors, at these addresses."""
        if direction != "backward_weight":
            return 0
        return getattr(self.module, f"{self.operator}_backward_weight_workspace")(*kind, geometry, plan)

    def run(
        self,
        direction: str,
        case: ConvCase,
        layout: Layout,
        element: str,
        operands: tuple[Tensor, Tensor],
        plan: Any = None,
        bias: Tensor | None = None,
        place: Place = torch_alloc,
    ) -> Tensor:
        """The result on the CPU. `place` decides where operands, bias, result and workspace lie."""
        torch_dtype, geometry = ELEMENTS[element][0], self.geometry(case)
        first, second = (place(in_memory(t.to(torch_dtype), layout).to(self.device)) for t in operands)
        shape = result_shape(direction, case)
        unwritten = torch.full((torch.Size(shape).numel(),), float("nan"), dtype=torch_dtype, device=self.device)
        result = place(unwritten)
        pointers = [first.data_ptr(), second.data_ptr()]
        kind, launch = self.kind(element, layout), getattr(self.module, f"{self.operator}_{direction}")
        rest = (*kind, geometry, 0, plan)
        size = self.workspace_bytes(direction, kind, geometry, plan, *pointers, result.data_ptr())
        # NaN in every type.
        workspace = self.workspace(torch.full((max(size, 1),), 255, dtype=torch.uint8, device=self.device), place)
        packed = {"workspace": workspace.data_ptr()} if size else {}
        if direction == "forward":
            b = None if bias is None else place(bias.to(torch_dtype).to(self.device))
            launch(*pointers, 0 if b is None else b.data_ptr(), result.data_ptr(), *rest, **packed)
        elif direction == "backward_input":
            launch(*pointers, result.data_ptr(), *rest, **packed)
        else:
            launch(*pointers, result.data_ptr(), workspace.data_ptr(), *rest)
        return from_memory(result.cpu(), shape, layout)


class ConvRunner(DirectionsRunner):
    """conv2d's launchers."""

    def workspace(self, flat: Tensor, place: Place) -> Tensor:
        """Aligned as every allocator aligns, which packed copies rely on."""
        placed = place(flat)
        return flat if placed.data_ptr() % 16 else placed

    def workspace_bytes(self, direction: str, kind: tuple[int, ...], geometry: Any, plan: Any, *addresses: int) -> int:
        which = getattr(self.module.ConvDirection, direction)
        return self.module.conv_workspace(which, *kind, geometry, plan, *addresses)

    def plans(self, direction: str, case: ConvCase, layout: Layout, element: str) -> list[Any]:
        _, dtype, tf32 = ELEMENTS[element]
        which = getattr(self.module.ConvDirection, direction)
        return self.module.conv_plans(which, dtype, int(layout), tf32, self.geometry(case))

    def tiled_plan(self, direction: str, case: ConvCase, layout: Layout, element: str) -> Any:
        """What selection takes for the engine every GPU has, with the loaders an A100 would use."""
        _, dtype, tf32 = ELEMENTS[element]
        which, geometry = getattr(self.module.ConvDirection, direction), self.geometry(case)
        a100 = self.module.gpu_named("a100")
        part = self.module.conv_explain(which, dtype, int(layout), tf32, geometry, a100).parts[0]
        return part.candidates[part.chosen].plan

    def plan(self, element: str, tile: int, a: str, b: str, splits: int = 1, packing: str = "none") -> Any:
        plan = self.module.ConvPlan()
        plan.packing = getattr(self.module.ConvPacking, packing)
        plan.engine = getattr(self.module.ConvEngine, "fma" if element in ("fp64", "fp32") else "mma")
        plan.tile, plan.splits = tile, splits
        plan.a, plan.b = getattr(self.module.ConvLoader, a), getattr(self.module.ConvLoader, b)
        return plan
