"""The fused pair's Triton kernel. Every case is compared exactly, in one type and layout each; they take turns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.depthwise_separable_conv import launch as depthwise_separable_conv2d
from cnnkernels.triton_kernels.depthwise_separable_conv import select as depthwise_separable_conv_select
from cnnkernels.triton_kernels.depthwise_separable_conv.select import Configuration, Problem
from torch import Tensor

from cnnkernels import triton_kernels as kernels
from cnnkernels.activation import ACTIVATIONS as EVERY_ACTIVATION
from cnnkernels.activation import activate
from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DEPTHWISE_SEPARABLE_CONV2D, ConvCase, DepthwiseSeparableCase
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.depthwise_separable_conv import (
    ACTIVATIONS,
    SLOPE,
    reference,
)
from helpers.device import DEVICE

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
SAME = DepthwiseSeparableCase(ConvCase("", 2, 20, 5, 6, 20, 3, 3, padding=(1, 1, 1, 1), groups=20), 24)
NONE = ("none", "none")


def run(
    case: DepthwiseSeparableCase,
    tensors: tuple[Tensor | None, ...],
    layout: Layout,
    dtype: torch.dtype,
    activations: tuple[str, str] = NONE,
    save: bool = True,
    configuration: Configuration | None = None,
    tf32: bool = False,
    slope: float = SLOPE,
) -> tuple[Tensor, Tensor | None]:
    """y and z."""

    def place(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.to(DEVICE, dtype)
        return tensor.to(memory_format=layout.memory_format) if tensor.ndim == 4 else tensor

    y = place(torch.full(case.output_shape, math.nan))
    z = place(torch.full(case.intermediate_shape, math.nan)) if save else None
    options = case.geometry, layout, tf32, *activations, slope, configuration
    kernels.depthwise_separable_conv_forward(*map(place, tensors), y, z, *options)
    return y.cpu(), z.cpu() if save else None


def random(case: DepthwiseSeparableCase, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """fp64 numbers that `dtype` holds."""
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.randn(t.shape, generator=generator).to(dtype).double() for t in operands(case))


@pytest.mark.parametrize("case", DEPTHWISE_SEPARABLE_CONV2D, ids=str)
def test_exact(case: DepthwiseSeparableCase) -> None:
    turn = DEPTHWISE_SEPARABLE_CONV2D.index(case)
    for layout in Layout:
        name = list(PRODUCTS)[(2 * turn + layout) % len(PRODUCTS)]
        dtype, tf32 = PRODUCTS[name]
        activations = ACTIVATIONS[(turn + layout) % len(ACTIVATIONS)]
        tensors = operands(case)
        y, z = reference(case, activations, *tensors)
        got, saved = run(case, tensors, layout, dtype, activations, tf32=tf32)
        assert torch.equal(saved, z.to(dtype)), name
        assert torch.equal(got, y.to(dtype)), name


@layouts
def test_every_configuration_is_exact(layout: Layout) -> None:
    tensors = (*operands(SAME)[:3], None, None)
    zeros = torch.zeros(20), torch.zeros(24)
    y, z = reference(SAME, ("relu", "none"), *tensors[:3], *(t.double() for t in zeros))
    rows = depthwise_separable_conv_select.TABLE["candidates"]
    found = {depthwise_separable_conv_select._of(row) for row in rows}
    small = Configuration(16, (2, 2), 16, 16, 4)  # several tiles of everything, and patches of two rows
    for c in (*{(c.patch, c.channels): c for c in found}.values(), small):
        got, saved = run(SAME, tensors, layout, torch.float32, ("relu", "none"), configuration=c)
        assert torch.equal(saved, z.float()), str(c)
        assert torch.equal(got, y.float()), str(c)


@pytest.mark.parametrize("activation", [name for name in EVERY_ACTIVATION if name != "none"])
def test_each_activation_in_each_place(activation: str) -> None:
    """In bf16, z and y are rounded before they are activated and after it, as two layers do; fp64 shows that the slope
    is not rounded to fp32. Exponentials may differ from PyTorch's by some last bits, and so are compared in fp64."""
    tensors = random(SAME, torch.bfloat16)
    steps = 16  # roundings within an activation, at most
    for dtype in (torch.float64,) if activation in ("silu", "gelu") else (torch.float64, torch.bfloat16):

        def activated(x: Tensor, dtype: torch.dtype = dtype) -> Tensor:
            return activate(x.to(torch.promote_types(dtype, torch.float32)), activation, 0.1).to(dtype)

        y, z = run(SAME, tensors, Layout.NHWC, dtype, (activation, "none"), slope=0.1)
        middle, filters, bias = activated(z), tensors[2], tensors[4]
        exact = F.conv2d(middle.double(), filters, bias)
        theirs = F.conv2d(middle, filters.to(dtype), bias.to(dtype))
        magnitude = F.conv2d(middle.double().abs(), filters.abs(), bias.abs())
        bound = rounding_bound(exact, theirs, steps + SAME.depthwise.k, magnitude, dtype)
        assert_within(y, exact, bound, f"{activation} of z in {dtype}")

        plain, _ = run(SAME, tensors, Layout.NHWC, dtype, slope=0.1)
        y, _ = run(SAME, tensors, Layout.NHWC, dtype, ("none", activation), slope=0.1)
        right = activated(plain)
        assert_within(
            y, right, rounding_bound(right, right, steps, plain.abs(), dtype), f"{activation} of y in {dtype}"
        )


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_rounding_and_the_intermediate(layout: Layout, dtype: torch.dtype) -> None:
    """What is saved, what is computed anew and what is not saved agree bit for bit; runs do too."""
    tensors = random(SAME, dtype)
    y, z = run(SAME, tensors, layout, dtype)
    alone, _ = run(SAME, tensors, layout, dtype, save=False)
    assert torch.equal(y, alone)
    anew = torch.full_like(z, math.nan).to(DEVICE, memory_format=layout.memory_format)
    x, w, b = (tensors[i].to(DEVICE, dtype) for i in (0, 1, 3))
    x = x.to(memory_format=layout.memory_format)
    kernels.depthwise_separable_conv_intermediate(x, w, b, anew, SAME.geometry, layout)
    assert torch.equal(z, anew.cpu())
    exact, _ = reference(SAME, NONE, *tensors)
    theirs, _ = reference(SAME, NONE, *(t.to(dtype) for t in tensors))
    magnitude, _ = reference(SAME, NONE, *(t.abs() for t in tensors))
    assert_within(y, exact, rounding_bound(exact, theirs, SAME.depthwise.k * 9, magnitude, dtype), str(layout))


def test_the_batch_is_no_part_of_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(problem: Problem) -> Configuration:
        asked.append(problem)
        return depthwise_separable_conv_select.choose(problem)

    monkeypatch.setattr(depthwise_separable_conv2d, "choose", choose)
    single = DepthwiseSeparableCase(ConvCase("", 1, *vars_of(SAME)), SAME.filters)
    for case in (SAME, single):
        run(case, operands(case), Layout.NHWC, torch.float32)
    assert len(set(asked)) == 1


def vars_of(case: DepthwiseSeparableCase) -> tuple[Any, ...]:
    d = case.depthwise
    return d.c, d.h, d.w, d.k, d.r, d.s, d.stride, d.padding, d.dilation, d.groups


def test_64_bit_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise_separable_conv_select, "LARGEST_INDEX", 0)
    tensors = operands(SAME)
    y, z = reference(SAME, NONE, *tensors)
    for layout in Layout:
        got, saved = run(SAME, tensors, layout, torch.float32)
        assert torch.equal(saved, z.float())
        assert torch.equal(got, y.float())


@pytest.mark.parametrize("arch", [0, 80, 90, 100])
@layouts
@pytest.mark.parametrize("dtype", list(PRODUCTS))
def test_every_problem_has_a_configuration(arch: int, layout: Layout, dtype: str) -> None:
    for case in DEPTHWISE_SEPARABLE_CONV2D:
        problem = Problem(dtype, layout, case.geometry._replace(n=1), case.filters, arch)
        c = depthwise_separable_conv_select.choose(problem)
        assert c.pixels >= 16 and c.channels >= 16 and c.filters >= 16  # tl.dot's least
