"""What the tests of conv2d's CUDA kernels share: running one direction over chosen memory by a chosen plan."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnnkernels.dtypes import PRODUCTS, dtype_code
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import convolve, small_integers
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
    results: dict[tuple[str, ConvCase], Tensor] = field(default_factory=dict)

    def operands(self, direction: str) -> tuple[Tensor, Tensor]:
        return {
            "forward": (self.x, self.w),
            "backward_input": (self.dy, self.w),
            "backward_weight": (self.dy, self.x),
        }[direction]

    def expected(self, direction: str, case: ConvCase) -> Tensor:
        if (direction, case) not in self.results:
            self.results[direction, case] = convolve(direction, case, *self.operands(direction))
        return self.results[direction, case]


@functools.cache
def integers(case: ConvCase) -> Data:
    """Small enough that every sum is exact in fp32 and every result in 16 bits. For all tests of a case: only read."""
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
    return convolve(direction, case, *not_finite(case, direction, which))


def random_case(chance: random.Random, depthwise: bool = False, channels: int = 1) -> ConvCase:
    """Small, of any geometry: padding beyond the filter's reach, windows that miss pixels. `channels`: what numbers of
    channels are multiples of."""
    while True:
        groups = 8 if depthwise else chance.choice([1, 1, 2])
        c, k = (groups * (1 if depthwise else channels * chance.randint(1, 2)) for _ in range(2))
        r, s, h, w = chance.randint(1, 4), chance.randint(1, 3), chance.randint(1, 9), chance.randint(1, 9)
        stride, dilation = ((chance.randint(1, 3), chance.randint(1, 3)) for _ in range(2))
        rows, columns = r * dilation[0] + 1, s * dilation[1] + 1
        padding = tuple(chance.randint(0, most) for most in (rows, rows, columns, columns))
        k *= chance.choice([1, 2])
        if h + sum(padding[:2]) >= rows - dilation[0] and w + sum(padding[2:]) >= columns - dilation[1]:
            return ConvCase("", chance.randint(1, 2), c, h, w, k, r, s, stride, padding, dilation, groups)


def not_finite_anywhere(case: ConvCase, chance: random.Random) -> tuple[Tensor, Tensor]:
    """backward_input's operands, with a few infinities and NaN in the filter and sometimes in the error."""
    dy, w = integers(case).operands("backward_input")
    operands = dy.clone(), torch.where(w == 0, 1.0, w)
    for odd, most in zip(operands, (chance.choice([0, 0, 2]), 3), strict=True):
        for _ in range(most):
            place = tuple(chance.randrange(size) for size in odd.shape)
            odd[place] = chance.choice([math.inf, -math.inf, math.nan])
    return operands


def over_existing_windows(case: ConvCase, dy: Tensor, w: Tensor) -> Tensor:
    """backward_input by its definition: a pixel's products are those of the windows that hold it, and no others."""
    g, (top, _, left, _) = case.geometry, case.padding
    images = dy.view(g.n, g.groups, -1, g.p, g.q)
    filters = w.view(g.groups, -1, g.c // g.groups, g.r, g.s)
    dx = torch.zeros(case.input_shape, dtype=dy.dtype).view(g.n, g.groups, -1, g.h, g.w)
    for p, q, r, s in itertools.product(*map(range, (g.p, g.q, g.r, g.s))):
        row, column = p * g.stride_h - top + r * g.dilation_h, q * g.stride_w - left + s * g.dilation_w
        if 0 <= row < g.h and 0 <= column < g.w:
            products = torch.einsum("ngk,gkc->ngc", images[..., p, q], filters[..., r, s])
            dx[..., row, column] += products
    return dx.view(case.input_shape)


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
