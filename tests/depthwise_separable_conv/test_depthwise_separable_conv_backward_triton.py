"""The fused backward's Triton kernel: exact on small integers, z saved or made anew, in parts, one result or both."""

from __future__ import annotations

import math

import pytest
import torch
from cnnkernels.triton_kernels.depthwise_separable_conv.select import Configuration
from torch import Tensor

from cnnkernels import functional, triton_kernels, use_backend
from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DEPTHWISE_SEPARABLE_CONV2D, ConvCase, DepthwiseSeparableCase
from helpers.depthwise_separable_conv import (
    ACTIVATIONS,
    SLOPE,
    error,
    expected,
)
from helpers.device import DEVICE

SAME = DepthwiseSeparableCase(ConvCase("", 3, 20, 3, 6, 20, 3, 3, padding=(1, 1, 1, 1), groups=20), 24)
SMALL = Configuration(16, (2, 2), 16, 16, 4)  # several tiles of everything, and patches of two rows
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def run(
    case: DepthwiseSeparableCase,
    layout: Layout,
    dtype: torch.dtype,
    tensors: tuple[Tensor, ...],
    grad: Tensor,
    activation: str,
    saved: Tensor | None = None,
    wants: tuple[bool, bool] = (True, True),
    configuration: Configuration | None = None,
    splits: int | None = None,
) -> list[Tensor | None]:
    """z's error and the pointwise filter's gradient."""

    def place(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.to(DEVICE, dtype)
        return tensor.to(memory_format=layout.memory_format) if tensor.ndim == 4 else tensor

    shapes = zip((case.intermediate_shape, case.pointwise_shape), wants, strict=True)
    results = [place(torch.full(shape, math.nan)) if wanted else None for shape, wanted in shapes]
    given = [place(t) for t in (grad, *tensors[:4], saved)]
    options = case.geometry, layout, activation, SLOPE, configuration, splits
    triton_kernels.depthwise_separable_conv_backward(*given, *results, *options)
    return [None if t is None else t.cpu() for t in results]


@pytest.mark.parametrize("case", DEPTHWISE_SEPARABLE_CONV2D, ids=str)
def test_exact(case: DepthwiseSeparableCase) -> None:
    turn = DEPTHWISE_SEPARABLE_CONV2D.index(case)
    tensors, grad = operands(case), error(case)
    for layout in Layout:
        activation, dtype = ACTIVATIONS[(turn + layout) % 4][0], DTYPES[(2 * turn + layout) % 4]
        z, *results = expected(case, activation, tensors, grad)
        ours = run(case, layout, dtype, tensors, grad, activation, saved=z if turn % 3 == 0 else None)
        for mine, true in zip(ours, results, strict=True):
            assert torch.equal(mine, true.to(dtype)), (layout, dtype, activation)


@pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
def test_parts_and_tiles(layout: Layout) -> None:
    """Three parts, two tiles of filters and of channels."""
    tensors, grad = operands(SAME), error(SAME)
    _, *results = expected(SAME, "relu6", tensors, grad)
    for mine, true in zip(
        run(SAME, layout, torch.bfloat16, tensors, grad, "relu6", None, (True, True), SMALL, 3), results, strict=True
    ):
        assert torch.equal(mine, true.to(mine.dtype))


def test_either_result_alone() -> None:
    """And z's error has the same bits, in one part and two."""
    tensors, grad = operands(SAME), torch.randn(SAME.output_shape, generator=torch.Generator().manual_seed(3))
    both, error_alone, gradient_alone = (
        run(SAME, Layout.NHWC, torch.float32, tensors, grad, "silu", None, wants, SMALL, splits)
        for wants, splits in (((True, True), 2), ((True, False), 1), ((False, True), 2))
    )
    assert torch.equal(error_alone[0], both[0]) and error_alone[1] is None
    assert torch.equal(gradient_alone[1], both[1]) and gradient_alone[0] is None


def test_when_it_serves() -> None:
    fuses = triton_kernels.depthwise_separable_conv_fuses_backward
    assert fuses(torch.float64, 5000, False) and fuses(torch.bfloat16, 256, False)
    assert not fuses(torch.float16, 257, False)
    assert not fuses(torch.float32, 8, False) and not fuses(torch.float32, 8, True)


def test_gradients(device) -> None:
    shapes = (1, 4, 4, 3), (4, 1, 2, 3), (3, 4, 1, 1), (4,), (3,)
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64).to(device).requires_grad_() for s in shapes]

    def gradients(backend: str) -> tuple[Tensor, ...]:
        with use_backend(backend):
            y = functional.depthwise_separable_conv2d(
                *tensors, padding=1, depthwise_activation="gelu", pointwise_activation="silu"
            )
        return torch.autograd.grad(y.square().sum(), tensors)

    for ours, theirs in zip(gradients("triton"), gradients("reference"), strict=True):
        torch.testing.assert_close(ours, theirs)
