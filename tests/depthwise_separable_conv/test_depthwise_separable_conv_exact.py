"""Every case on small integers: any order of summation gives the same bits, so equality without tolerance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DEPTHWISE_SEPARABLE_CONV2D, DepthwiseSeparableCase
from helpers.depthwise_separable_conv import (
    ACTIVATIONS,
    SLOPE,
    reference,
)
from helpers.device import DEVICE, MODULE

cases = pytest.mark.parametrize("case", DEPTHWISE_SEPARABLE_CONV2D, ids=str)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
dtypes = pytest.mark.parametrize("dtype", list(PRODUCTS))


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> Tensor:
    return torch.full(shape, math.nan, dtype=dtype, device=DEVICE).to(memory_format=layout.memory_format)


@cases
@layouts
@dtypes
def test_forward(case: DepthwiseSeparableCase, layout: Layout, dtype: str) -> None:
    """The activations take turns with the types; without any there are no biases either."""
    turn = DEPTHWISE_SEPARABLE_CONV2D.index(case) + list(PRODUCTS).index(dtype) + layout
    activations = ACTIVATIONS[turn % len(ACTIVATIONS)]
    kernels = native.load(MODULE)
    torch_dtype, tf32 = PRODUCTS[dtype]
    tensors = operands(case)
    y, z = reference(case, activations, *tensors)
    assert y.abs().max() <= 256 and z.abs().max() <= 128, "not exact in bfloat16: halves of z are products' factors"
    on_device = [t.to(torch_dtype).to(DEVICE) for t in tensors]
    for i in range(3):
        on_device[i] = on_device[i].contiguous(memory_format=layout.memory_format)
    if activations == ("none", "none"):
        y, z = reference(case, activations, *tensors[:3], torch.zeros_like(tensors[3]), torch.zeros_like(tensors[4]))
        on_device[3:] = [None, None]
    output = unwritten(case.output_shape, torch_dtype, layout)
    saved = unwritten(case.intermediate_shape, torch_dtype, layout)
    arguments = case.geometry, layout, tf32, *activations, SLOPE
    kernels.depthwise_separable_conv_forward(*on_device, output, saved, *arguments)
    assert torch.equal(saved.cpu(), z.to(torch_dtype))
    assert torch.equal(output.cpu(), y.to(torch_dtype))
    alone = unwritten(case.intermediate_shape, torch_dtype, layout)
    kernels.depthwise_separable_conv_intermediate(*on_device[:2], on_device[3], alone, case.geometry, layout)
    assert torch.equal(alone.cpu(), z.to(torch_dtype))
