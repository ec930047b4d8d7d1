"""What the tests of depthwise_separable_conv2d share: cases, operands, references, and a runner of its launchers."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import native
from cnnkernels.activation import ACTIVATIONS as EVERY_ACTIVATION
from cnnkernels.activation import activate
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase, DepthwiseSeparableCase
from cnnkernels.testing.numerics import small_integers
from helpers.conv import ELEMENTS, Place, from_memory, in_memory
from helpers.device import DEVICE, MODULE
from helpers.native import Runner

ACTIVATIONS = [("none", "none"), ("relu", "none"), ("relu6", "relu"), ("leaky_relu", "relu6")]
SLOPE = 0.5  # keeps halves of integers exact


def reference(case: DepthwiseSeparableCase, activations: tuple[str, str], *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """y and z."""
    x, first, second, first_bias, second_bias = tensors
    top, bottom, left, right = case.depthwise.padding
    d = case.depthwise
    z = F.conv2d(F.pad(x, (left, right, top, bottom)), first, first_bias, d.stride, 0, d.dilation, d.groups)
    y = F.conv2d(activate(z, activations[0], SLOPE), second, second_bias)
    return activate(y, activations[1], SLOPE), z


NCHW, NHWC = Layout.NCHW, Layout.NHWC
READERS = ("rows_of_three", "vectors", "elements")
TILES = range(3)


def pair_case(
    n: int, c: int, h: int, w: int, filters: int, r: int = 3, s: int = 3, **rest: Any
) -> DepthwiseSeparableCase:
    return DepthwiseSeparableCase(ConvCase("", n, c, h, w, c, r, s, groups=c, **rest), filters)


SAME = {"padding": (1, 1, 1, 1)}
# More pixels, channels and filters than the largest tile and a stage hold, none a multiple of them.
LARGE = pair_case(1, 72, 9, 15, 168, **SAME)


def exists(element: str, tile: int, reader: str) -> bool:
    """Which kernels there are (csrc/depthwise_separable_conv/launchers.h)."""
    if element == "fp64":
        return tile == 0 and reader != "rows_of_three"
    if element == "fp32":
        return tile < 2
    if element == "tf32":
        return tile in (0, 1 if reader == "elements" else 2)
    return tile != 1 or reader != "elements"


CONFIGURATIONS = [
    (element, tile, reader)
    for element in ELEMENTS
    for tile in TILES
    for reader in READERS
    if exists(element, tile, reader)
]


class PairRunner(Runner):
    """depthwise_separable_conv2d's launchers."""

    def __init__(self, module: ModuleType | None = None) -> None:
        super().__init__(module or native.load(MODULE).module, DEVICE)

    def plan(self, tile: int, reader: str, patch_columns: int = 8, keeps: bool = False, wgmma: bool = False) -> Any:
        plan = self.module.DepthwiseSeparablePlan()
        plan.tile, plan.patch_columns, plan.keeps, plan.wgmma = tile, patch_columns, keeps, wgmma
        plan.reader = getattr(self.module.DepthwiseSeparableReader, reader)
        return plan

    def run(
        self,
        case: DepthwiseSeparableCase,
        layout: Layout,
        element: str,
        tensors: tuple[Tensor, ...],
        plan: Any = None,
        activations: tuple[str, str] = ("none", "none"),
        place: Place = torch.clone,
    ) -> tuple[Tensor, Tensor]:
        """y and the z it saved, on the CPU. `place` decides where each tensor lies."""
        torch_dtype, dtype, tf32 = ELEMENTS[element]
        flat = [
            place((in_memory(t, layout) if t.dim() == 4 else t).to(torch_dtype).contiguous().to(DEVICE))
            for t in tensors
        ]
        results = [
            place(torch.full((math.prod(shape),), math.nan, dtype=torch_dtype, device=DEVICE))
            for shape in (case.output_shape, case.intermediate_shape)
        ]
        geometry = self.module.ConvGeometry(*case.geometry)
        codes = [EVERY_ACTIVATION.index(name) for name in activations]
        self.module.depthwise_separable_conv_forward(
            *(t.data_ptr() for t in (*flat, *results)), dtype, int(layout), tf32, geometry, case.filters, *codes,
            SLOPE, 0, plan,
        )  # fmt: skip
        y, z = (r.cpu() for r in results)
        return from_memory(y, case.output_shape, layout), from_memory(z, case.intermediate_shape, layout)

    def intermediate(
        self, case: DepthwiseSeparableCase, layout: Layout, element: str, tensors: tuple[Tensor, ...], plan: Any = None
    ) -> Tensor:
        torch_dtype, dtype, _ = ELEMENTS[element]
        x, weight, bias = (
            (in_memory(t, layout) if t.dim() == 4 else t).to(torch_dtype).contiguous().to(DEVICE)
            for t in (tensors[0], tensors[1], tensors[3])
        )
        z = torch.full((math.prod(case.intermediate_shape),), math.nan, dtype=torch_dtype, device=DEVICE)
        geometry = self.module.ConvGeometry(*case.geometry)
        pointers = [t.data_ptr() for t in (x, weight, bias, z)]
        self.module.depthwise_separable_conv_intermediate(*pointers, dtype, int(layout), geometry, 0, plan)
        return from_memory(z.cpu(), case.intermediate_shape, layout)


def floats(case: DepthwiseSeparableCase, element: str) -> tuple[Tensor, ...]:
    """Random numbers that the type holds, in fp64."""
    generator = torch.Generator().manual_seed(6)
    shapes = (case.input_shape, case.depthwise_shape, case.pointwise_shape, (case.depthwise.k,), (case.filters,))
    return tuple(torch.randn(s, generator=generator).to(ELEMENTS[element][0]).double() for s in shapes)


schedules = pytest.mark.parametrize(
    "scheduled",
    [
        {"order": "ordered", "seed": 0, "delivery": "late"},
        {"order": "reversed", "seed": 0, "delivery": "late"},
        {"order": "random", "seed": 1, "delivery": "random"},
    ],
    ids=lambda value: "-".join(map(str, value.values())),
    indirect=True,
)


def error(case: DepthwiseSeparableCase) -> Tensor:
    """Small integers, few enough that 16 bits hold every number on the way."""
    keep = torch.rand(case.output_shape, generator=torch.Generator().manual_seed(8)) < 0.5
    return small_integers(case.output_shape, torch.float64, seed=7, bound=2) * keep


def derivative(activation: str, z: Tensor, of: Tensor) -> Tensor:
    leaf = z.detach().requires_grad_()
    return torch.autograd.grad(activate(leaf, activation, SLOPE), leaf, of)[0] if of.numel() else of


def expected(
    case: DepthwiseSeparableCase, activation: str, tensors: tuple[Tensor, ...], grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """z, its error and the gradient in the tensors' type."""
    z = reference(case, ("none", "none"), *tensors)[1]
    product = torch.einsum("nkpq,km->nmpq", grad, tensors[2][:, :, 0, 0])
    gradient = torch.einsum("nkpq,nmpq->km", grad, activate(z, activation, SLOPE))
    of_z = product if activation == "none" else derivative(activation, z, product)
    return z, of_z, gradient[:, :, None, None]


class Backward(PairRunner):
    def backward(
        self,
        case: DepthwiseSeparableCase,
        layout: Layout,
        element: str,
        tensors: tuple[Tensor, ...],
        grad: Tensor,
        activation: str = "none",
        *,
        saved: Tensor | None = None,
        wants: tuple[bool, bool] = (True, True),
        reader: str | None = None,
        parts: int = 0,
        place: Any = torch.clone,
    ) -> list[Tensor | None]:
        """z's error and the pointwise filter's gradient, on the CPU; None for one that is not wanted."""
        torch_dtype, dtype, _ = ELEMENTS[element]
        x, first, second, bias, _ = tensors

        def placed(t: Tensor | None) -> Tensor | None:
            if t is None:
                return None
            return place((in_memory(t, layout) if t.dim() == 4 else t).to(torch_dtype).contiguous().to(DEVICE))

        shapes = case.intermediate_shape, case.pointwise_shape
        given = [placed(t) for t in (grad, x, first, second, bias, saved)]
        results = [
            place(torch.full((math.prod(shape),), math.nan, dtype=torch_dtype, device=DEVICE)) if wanted else None
            for shape, wanted in zip(shapes, wants, strict=True)
        ]
        plan = None
        if reader is not None or parts > 0:
            plan = self.module.DepthwiseSeparableBackwardPlan()
            plan.parts = max(parts, 1)
            plan.reader = getattr(self.module.DepthwiseSeparableReader, reader or "elements")
        geometry = self.module.ConvGeometry(*case.geometry)
        shape = dtype, int(layout), geometry, case.filters
        size = self.module.depthwise_separable_conv_backward_workspace(*shape, plan)
        workspace = place(torch.full((size // 4,), math.nan, dtype=torch.float32, device=DEVICE))
        pointers = [0 if t is None else t.data_ptr() for t in (*given, *results, workspace)]
        code = EVERY_ACTIVATION.index(activation)
        self.module.depthwise_separable_conv_backward(*pointers, *shape, code, SLOPE, 0, plan)
        return [
            None if t is None else from_memory(t.cpu(), size, layout if size == shapes[0] else NCHW)
            for t, size in zip(results, shapes, strict=True)
        ]
