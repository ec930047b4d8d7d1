"""Trials of the convolutions: every plan that can serve each problem, with epilogues, NaN and infinite filters."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..certified.families import HALVES, Family
from ..dtypes import ELEMENTS, PRODUCTS
from ..epilogue import Epilogue
from ..geometry import Layout
from ..testing.cases import CONV2D, ConvCase
from ..testing.depthwise_cases import DEPTHWISE_CONV2D, depthwise
from ..testing.numerics import convolve, small_integers
from .trial import Operands, Results, Trial


def _grouped(c: int, k: int, groups: int, h: int, w: int, r: int, s: int, **rest: Any) -> ConvCase:
    """By the channels and filters of one group."""
    return ConvCase(f"groups of {c} to {k}", 2, c * groups, h, w, k * groups, r, s, groups=groups, **rest)


# Stages that hold 128, 64 and 32 bytes of channels, more of them than a ring has, and a partial second row tile.
_SPANS = tuple(
    ConvCase(f"{c} channels", 5, c, 5, 6, c, r, s, padding=(r // 2, (r - 1) // 2, s // 2, (s - 1) // 2))
    for c, (r, s) in ((64, (3, 3)), (32, (4, 4)), (16, (6, 5)))
)
# Of contiguous tensors: pixels are whole vectors, and so are the filter's channels.
_PLANES = (ConvCase("1x1 on whole vectors of pixels", 3, 72, 8, 10, 136, 1, 1),)
_WIDTHS = ((4, 4, 6), (8, 8, 3), (16, 16, 2), (2, 16, 4))
_GROUPS = (
    *(_grouped(c, k, n, 5, 9, 3, 3, padding=(1, 1, 1, 0)) for c, k, n in _WIDTHS),
    _grouped(2, 4, 4, 13, 10, 3, 2, stride=(3, 2), padding=(0, 1, 0, 2), dilation=(2, 2)),
)
_PIXELS = (ConvCase("many pixels", 3, 72, 9, 10, 136, 1, 1, padding=(1, 1, 1, 0)),)
CASES: tuple[ConvCase, ...] = (*CONV2D, *_SPANS, *_PLANES, *_GROUPS, *_PIXELS)
DEPTHWISE_CASES: tuple[ConvCase, ...] = DEPTHWISE_CONV2D
# Planes wider than a tensor core's tile, whose bands take any number of tiles.
_BANDS = (
    depthwise("13x13 on a wider plane", 1, 8, (5, 29), (13, 13), padding=(6, 6)),
    depthwise("31x31 on a wider plane", 1, 2, (5, 29), (31, 31), padding=(15, 15)),
)
_APART = depthwise("9x8 by elements", 1, 8, (9, 8), (7, 7), (2, 2), (3, 2))
# Of packed images: what an operand runs along, as in channels_last.
_PACKED_LOADERS = {
    "forward": ("along_depth", "along_depth"),
    "backward_input": ("along_depth", "along_side"),
    "backward_weight": ("along_side", "along_side"),
}


class Data:
    """Operands in fp64, so small that every sum is exact in fp32, and what each direction makes of them."""

    def __init__(self, case: ConvCase) -> None:
        self.case = case
        self.x = small_integers(case.input_shape, torch.float64, seed=1)
        self.w = small_integers(case.weight_shape, torch.float64, seed=2, bound=1)
        self.b = small_integers((case.k,), torch.float64, seed=3)
        self.dy = small_integers(case.output_shape, torch.float64, seed=4, bound=1)

    def operands(self, direction: str) -> tuple[Tensor, Tensor]:
        return {
            "forward": (self.x, self.w),
            "backward_input": (self.dy, self.w),
            "backward_weight": (self.dy, self.x),
        }[direction]


def _plainly(case: ConvCase, direction: str, first: Tensor, second: Tensor) -> Tensor:
    """One direction by PyTorch's plain operators on the CPU, where NaN and infinity go where they belong."""
    with torch.backends.mkldnn.flags(enabled=False):
        return convolve(direction, case, first, second)


@functools.cache
def _data(case: ConvCase) -> Data:
    return Data(case)


@functools.cache
def _expected(case: ConvCase, direction: str) -> Tensor:
    return _plainly(case, direction, *_data(case).operands(direction))


def _shape(case: ConvCase, direction: str) -> tuple[int, ...]:
    shapes = {"forward": case.output_shape, "backward_input": case.input_shape, "backward_weight": case.weight_shape}
    return shapes[direction]


class _Conv:
    """One direction of conv2d, or of depthwise_conv2d, in one element type and layout."""

    def __init__(self, word: str, direction: str, element: str, layout: Layout) -> None:
        self.word, self.direction, self.layout = word, direction, layout
        self.dtype, tf32 = PRODUCTS[element]
        self.flags = (tf32,) if word == "conv" else ()

    def launch(self, kernels: Any, device: str, case: ConvCase, first: Tensor, second: Tensor, *plan: Any) -> Tensor:
        put = Operands(device, self.dtype, self.layout)
        made = put.empty(_shape(case, self.direction))
        operands: list[Any] = [put.put(first), put.put(second)]
        if self.direction == "forward":
            operands.append(put.put(_data(case).b))
        function = getattr(kernels, f"{self.word}_{self.direction}")
        function(*operands, made, case.geometry, self.layout, *self.flags, *plan)
        return made

    def exact(self, case: ConvCase, *plan: Any) -> Trial:
        def call(kernels: Any, device: str) -> Results:
            expected = _expected(case, self.direction)
            if self.direction == "forward":
                expected = expected + _data(case).b[:, None, None]
            yield self.launch(kernels, device, case, *_data(case).operands(self.direction), *plan), expected

        chosen = plan[0] if plan and plan[0] is not None else None
        return Trial(self._name(case, chosen), call, anywhere=chosen is None)

    def with_epilogue(self, case: ConvCase, plan: Any) -> Trial:
        """Bias, scale, shift, residual and an activation: sums wait unrounded for what follows."""

        def call(kernels: Any, device: str) -> Results:
            put, data = Operands(device, self.dtype, self.layout), _data(case)
            scale, shift = (small_integers((case.k,), torch.float64, seed=seed) for seed in (5, 6))
            residual = small_integers(case.output_shape, torch.float64, seed=7)
            epilogue = Epilogue(put.put(scale), put.put(shift), put.put(residual), "relu")
            made = put.empty(case.output_shape)
            operands = put.put(data.x), put.put(data.w), put.put(data.b), made
            kernels.conv_forward(*operands, case.geometry, self.layout, *self.flags, plan, epilogue)
            sums = _expected(case, "forward") + data.b[:, None, None]
            yield made, (sums * scale[:, None, None] + shift[:, None, None] + residual).relu()

        return Trial(f"{self._name(case, plan)}, epilogue", call, anywhere=plan is None)

    def not_finite(self, case: ConvCase) -> Trial:
        """NaN in the first operand of each channel; of backward_input an infinite tap, that some pixels of the border
        meet no window by: they stay finite."""

        def call(kernels: Any, device: str) -> Results:
            first, second = (operand.clone() for operand in _data(case).operands(self.direction))
            if self.direction == "backward_input":
                second[0, 0, 0, 0] = math.inf
            else:
                first[0, :, 0, 0] = math.nan
            expected = _plainly(case, self.direction, first, second)
            if self.direction == "forward":
                expected = expected + _data(case).b[:, None, None]
            yield self.launch(kernels, device, case, first, second), expected

        return Trial(f"{self._name(case, None)}, not finite", call)

    def _name(self, case: ConvCase, plan: Any) -> str:
        return f"{case.reason}, {self.layout.name.lower()}" + (f", {plan!r}" if plan is not None else "")


def _plans(module: Any, gpu: Any, family: Family, case: ConvCase, layout: Layout) -> list[Any]:
    """Of an engine, those that can serve a problem on a GPU."""
    element = ELEMENTS[family.element]
    direction = getattr(module.ConvDirection, family.direction)
    asked = module.ConvPlan()
    asked.engine = module.ConvEngine.fma if family.engine == "fma" else module.ConvEngine.mma
    asked.binding = True  # as the tensors lie: packing is a family of its own
    numbers = element.code, int(layout), element.tf32, module.ConvGeometry(*case.geometry)
    found = module.conv_explain(direction, *numbers, gpu, asked)
    if family.engine in ("wgmma", "grouped"):
        able = [candidate.plan for candidate in getattr(found, family.engine) if candidate.why_not is None]
    else:
        serving = [{repr(c.plan): c.plan for c in part.candidates if c.why_not is None} for part in found.parts]
        able = [plan for name, plan in (serving[0] if serving else {}).items() if all(name in each for each in serving)]
    plans: list[Any] = []
    for plan in able:
        plan.binding = True
        plans += [plan] if all(plan != other for other in plans) else []
    return plans


def _packed_plans(module: Any, direction: str) -> Iterator[Any]:
    for tile in range(module.conv_tiles):
        plan = module.ConvPlan()
        plan.engine, plan.tile, plan.binding = module.ConvEngine.mma, tile, True
        plan.packing, plan.splits = module.ConvPacking.channels, 1
        a, b = _PACKED_LOADERS[direction]
        plan.a, plan.b = getattr(module.ConvLoader, a), getattr(module.ConvLoader, b)
        yield plan


def _of_cuda(family: Family, module: Any, gpu: Any) -> Iterator[Trial]:
    for layout in Layout:
        conv = _Conv("conv", family.direction, family.element, layout)
        if family.engine == "packed":
            for case in (CASES[5 % len(CASES)], CASES[6 % len(CASES)]):
                for plan in _packed_plans(module, family.direction):
                    yield conv.exact(case, plan)
            continue
        for case in CASES:
            plans = _plans(module, gpu, family, case, layout)
            for plan in plans:
                yield conv.exact(case, plan)
                if family.direction == "forward" and case in (*_SPANS, *_GROUPS, *CASES[5:7]):
                    yield conv.with_epilogue(case, plan)
            if plans and family.engine in ("mma", "fma"):
                yield conv.exact(case, None)  # what the rule takes, wherever the tensors lie
        if family.engine in ("mma", "fma"):
            yield from (conv.not_finite(case) for case in CASES[1:3])


def _of_triton(family: Family, architecture: int) -> Iterator[Trial]:
    """What selection takes for each problem, and of one problem every configuration that a large one may have."""
    from ..testing.triton_aot import WHOLE, conv_candidates

    for layout in Layout:
        conv = _Conv("conv", family.direction, family.element, layout)
        yield from (conv.exact(case, None) for case in CASES)
        yield from (conv.not_finite(case) for case in CASES[1:3])
        if family.direction == "forward":
            yield from (conv.with_epilogue(case, None) for case in CASES[5:7])
        for call in conv_candidates(family.direction, WHOLE, family.element, layout, architecture):
            case = CASES[5 % len(CASES)]
            flat = call.configuration.flat and case.c  # the channels beside a tap
            yield conv.exact(case, call.configuration._replace(flat=flat))


def _of_bias(family: Family) -> Iterator[Trial]:
    dtype = PRODUCTS[family.element][0]

    def trial(case: ConvCase, layout: Layout) -> Trial:
        def call(kernels: Any, device: str) -> Results:
            put, dy = Operands(device, dtype, layout), _data(case).dy
            made = put.empty((case.k,))
            kernels.conv_backward_bias(put.put(dy), made, case.geometry, layout)
            yield made, dy.sum((0, 2, 3))

        return Trial(f"{case.reason}, {layout.name.lower()}", call)

    yield from (trial(case, layout) for layout in Layout for case in CASES)


def _depthwise_plan(family: Family, module: Any, case: ConvCase, layout: Layout, **changes: int) -> Any:
    """What selection takes, but for some changes."""
    direction = getattr(module.DepthwiseConvDirection, family.direction)
    numbers = ELEMENTS[family.element].code, int(layout), module.ConvGeometry(*case.geometry)
    plan = module.depthwise_conv_plan(direction, *numbers)
    for name, value in changes.items():
        setattr(plan, name, value)
    return plan


def _of_depthwise(family: Family, module: Any) -> Iterator[Trial]:
    """By the plan that each problem has, and what larger problems have; `module`: CUDA's, whose plans say which are by
    bands of tensor cores."""
    for layout in Layout:
        conv = _Conv("depthwise_conv", family.direction, family.element, layout)
        for case in DEPTHWISE_CASES:
            band = module is not None and _depthwise_plan(family, module, case, layout).band
            if band == (family.engine == "band"):
                yield conv.exact(case)
        if layout is Layout.NHWC and family.engine == "band" and family.direction != "backward_weight":
            for case, tiles in itertools.product(_BANDS, (1, 2, 4, 7)):
                yield conv.exact(case, _depthwise_plan(family, module, case, layout, tiles=tiles))
        if layout is Layout.NHWC and family.engine == "fma":  # single elements of global memory, where no slab fits
            plan = _depthwise_plan(family, module, _APART, layout, vector=1, lanes=2, chunk=0)
            yield conv.exact(_APART, plan)
        if family.engine != "band":
            yield from (conv.not_finite(case) for case in DEPTHWISE_CASES[1:2])


def trials(family: Family, kernels: Any, gpu: Any, architecture: int) -> Iterator[Trial]:
    """`gpu`: as CUDA's module knows it, None where there is none."""
    if family.direction == "backward_bias":
        return _of_bias(family)
    if family.word == "depthwise_conv":
        return _of_depthwise(family, kernels.module if family.backend == "cuda" else None)
    if family.backend == "triton":
        return _of_triton(family, architecture)
    assert family.engine != "grouped" or family.element in HALVES
    return _of_cuda(family, kernels.module, gpu)
