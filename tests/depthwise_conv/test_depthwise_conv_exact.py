"""Every case on small integers: any order of summation gives the same bits, so equality without tolerance."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import DEPTHWISE_CONV2D
from helpers.conv import integers

pytestmark = pytest.mark.long

# Each case in one type of 16 bits and a wider one, taking turns with the layouts: the other pairs are in
# depthwise_conv/test_depthwise_conv_kernels.py, configuration by configuration.
TYPES = (
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float64, torch.float16),
    (torch.float16, torch.float64),
)
problems = pytest.mark.parametrize(
    ("case", "layout", "dtype"),
    [
        pytest.param(case, layout, dtype, id=f"{case}-{layout.name.lower()}-{dtype}".replace("torch.", ""))
        for i, case in enumerate(DEPTHWISE_CONV2D)
        for layout, dtype in zip(Layout, TYPES[i % 4], strict=True)
    ],
)


@functools.cache
def expected(direction: str, case: ConvCase) -> Tensor:
    return integers(case).expected(direction, case)


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout, device: str) -> Tensor:
    return torch.full(shape, float("nan"), dtype=dtype, device=device).to(memory_format=layout.memory_format)


def place(tensor: Tensor, dtype: torch.dtype, layout: Layout, device: str) -> Tensor:
    return tensor.to(device, dtype).to(memory_format=layout.memory_format)


@problems
def test_forward(kernels, device, case: ConvCase, layout: Layout, dtype: torch.dtype) -> None:
    data, with_bias = integers(case), layout is Layout.NHWC
    x, w = (place(t, dtype, layout, device) for t in (data.x, data.w))
    y = unwritten(case.output_shape, dtype, layout, device)
    kernels.depthwise_conv_forward(x, w, data.b.to(device, dtype) if with_bias else None, y, case.geometry, layout)
    right = expected("forward", case) + (data.b.view(-1, 1, 1) if with_bias else 0)
    assert torch.equal(y.cpu(), right.to(dtype))


@problems
def test_backward_input(kernels, device, case: ConvCase, layout: Layout, dtype: torch.dtype) -> None:
    data = integers(case)
    w, dy = (place(t, dtype, layout, device) for t in (data.w, data.dy))
    dx = unwritten(case.input_shape, dtype, layout, device)
    kernels.depthwise_conv_backward_input(dy, w, dx, case.geometry, layout)
    assert torch.equal(dx.cpu(), expected("backward_input", case).to(dtype))


@problems
def test_backward_weight(kernels, device, case: ConvCase, layout: Layout, dtype: torch.dtype) -> None:
    data = integers(case)
    x, dy = (place(t, dtype, layout, device) for t in (data.x, data.dy))
    dw = unwritten(case.weight_shape, dtype, layout, device)
    kernels.depthwise_conv_backward_weight(dy, x, dw, case.geometry, layout)
    assert torch.equal(dw.cpu(), expected("backward_weight", case).to(dtype))
