"""Trials of depthwise_separable_conv2d: the fused pair by each plan, its intermediate alone, and its gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..activation import activate
from ..certified.families import Family
from ..dtypes import PRODUCTS
from ..geometry import Layout
from ..testing.cases import DEPTHWISE_SEPARABLE_CONV2D, ConvCase, DepthwiseSeparableCase
from ..testing.numerics import small_integers
from .trial import Operands, Results, Trial

CASES: tuple[DepthwiseSeparableCase, ...] = DEPTHWISE_SEPARABLE_CONV2D
# More pixels, channels and filters than the largest tile and a stage hold, none a multiple of them.
LARGE = DepthwiseSeparableCase(ConvCase("large", 1, 72, 9, 15, 72, 3, 3, padding=(1, 1, 1, 1), groups=72), 168)


@functools.cache
def operands(case: DepthwiseSeparableCase) -> tuple[Tensor, ...]:
    """Input, both filters, both biases; so few nonzero products that 16 bits hold every number on the way."""
    x = small_integers(case.input_shape, torch.float64, seed=1)
    first = small_integers(case.depthwise_shape, torch.float64, seed=2, bound=1)
    second = small_integers(case.pointwise_shape, torch.float64, seed=3, bound=1)
    keep = torch.rand(second.shape, generator=torch.Generator().manual_seed(4)) < min(1, 8 / case.depthwise.k)
    biases = (small_integers((size,), torch.float64, seed=5) for size in (case.depthwise.k, case.filters))
    return x, first, second * keep, *biases


@functools.cache
def _error(case: DepthwiseSeparableCase) -> Tensor:
    keep = torch.rand(case.output_shape, generator=torch.Generator().manual_seed(8)) < 0.5
    return small_integers(case.output_shape, torch.float64, seed=7) * keep


@functools.cache
def _expected(case: DepthwiseSeparableCase) -> dict[str, Tensor]:
    x, first, second, first_bias, second_bias = operands(case)
    top, bottom, left, right = case.depthwise.padding
    d = case.depthwise
    z = F.conv2d(F.pad(x, (left, right, top, bottom)), first, first_bias, d.stride, 0, d.dilation, d.groups)
    leaf, weight = z.requires_grad_(), second.clone().requires_grad_()
    y = F.conv2d(activate(leaf, "relu6", 0.0), weight, second_bias)
    of_z, of_weight = torch.autograd.grad(y, (leaf, weight), _error(case))
    return {"y": y.detach().relu(), "z": z.detach(), "of_z": of_z, "of_weight": of_weight}


def _forward(case: DepthwiseSeparableCase, element: str, layout: Layout, plan: Any) -> Trial:
    dtype, tf32 = PRODUCTS[element]

    def call(kernels: Any, device: str) -> Results:
        put, right = Operands(device, dtype, layout), _expected(case)
        x, first, second, first_bias, second_bias = (put.put(each) for each in operands(case))
        y, z, alone = (
            put.empty(case.output_shape),
            put.empty(case.intermediate_shape),
            put.empty(case.intermediate_shape),
        )
        how = case.geometry, layout, tf32, "relu6", "relu", 0.0
        try:
            kernels.depthwise_separable_conv_forward(x, first, second, first_bias, second_bias, y, z, *how, plan)
        except ValueError:
            if plan is None:
                raise
            return  # there is no such kernel of this type, or not on this GPU
        yield from ((y, right["y"]), (z, right["z"]))
        if plan is None:
            kernels.depthwise_separable_conv_intermediate(x, first, first_bias, alone, case.geometry, layout)
            yield alone, right["z"]

    named = "" if plan is None else f", {plan!r}"
    return Trial(f"{case.depthwise.reason}, {layout.name.lower()}{named}", call, anywhere=plan is None)


def _backward(case: DepthwiseSeparableCase, element: str, layout: Layout) -> Trial:
    dtype = PRODUCTS[element][0]

    def call(kernels: Any, device: str) -> Results:
        put, right = Operands(device, dtype, layout), _expected(case)
        x, first, second, bias, _ = (put.put(each) for each in operands(case))
        for saved in (None, put.put(right["z"])):
            of_z = put.empty(case.intermediate_shape)
            of_weight = put.empty(case.pointwise_shape)
            kernels.depthwise_separable_conv_backward(
                put.put(_error(case)), x, first, second, bias, saved, of_z, of_weight, case.geometry, layout,
                "relu6", 0.0,
            )  # fmt: skip
            yield from ((of_z, right["of_z"]), (of_weight, right["of_weight"]))

    return Trial(f"{case.depthwise.reason}, {layout.name.lower()}", call)


def _plans(module: Any, family: Family) -> Iterator[Any]:
    """Of an engine; those that are no kernels are refused when they are tried."""
    for tile in range(3):
        for reader in ("rows_of_three", "vectors", "elements"):
            for keeps in (False, True):
                plan = module.DepthwiseSeparablePlan()
                plan.tile, plan.patch_columns, plan.keeps = tile, 8, keeps
                plan.wgmma = family.engine == "wgmma"
                plan.reader = getattr(module.DepthwiseSeparableReader, reader)
                yield plan


def trials(family: Family, kernels: Any, gpu: Any) -> Iterator[Trial]:
    for layout in Layout:
        if family.direction == "backward":
            yield from (_backward(case, family.element, layout) for case in CASES)
            continue
        if family.engine != "wgmma":
            yield from (_forward(case, family.element, layout, None) for case in CASES)
        if family.backend == "cuda" and (family.engine != "wgmma" or gpu.why_not_wgmma is None):
            yield from (_forward(LARGE, family.element, layout, plan) for plan in _plans(kernels.module, family))
