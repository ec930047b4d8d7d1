"""Every case against PyTorch: values, places and routed gradients, equal without tolerance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.geometry import Layout, argmax_dtype
from cnnkernels.testing.cases import MAX_POOL2D, PoolCase
from cnnkernels.testing.numerics import small_integers

cases = pytest.mark.parametrize("case", MAX_POOL2D, ids=str)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
dtypes = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=["fp64", "fp32", "fp16", "bf16"]
)


def place(tensor: Tensor, layout: Layout, device: str) -> Tensor:
    return tensor.to(device).to(memory_format=layout.memory_format)


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout, device: str) -> Tensor:
    value = float("nan") if dtype.is_floating_point else 113
    return torch.full(shape, value, dtype=dtype, device=device).to(memory_format=layout.memory_format)


def reference(case: PoolCase, x: Tensor) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(x, case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode, return_indices=True)


def pooled(kernels, case: PoolCase, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    y = unwritten(case.output_shape, x.dtype, layout, x.device.type)
    argmax = unwritten(case.output_shape, argmax_dtype(*case.kernel), layout, x.device.type)
    kernels.max_pool_forward(x, y, argmax, case.geometry, layout)
    return y, argmax


@cases
@layouts
@dtypes
def test_forward_and_indices(kernels, device, case: PoolCase, layout: Layout, dtype: torch.dtype) -> None:
    x = small_integers(case.input_shape, dtype, seed=1)  # few values: many ties
    expected, expected_indices = reference(case, x)
    y, argmax = pooled(kernels, case, place(x, layout, device), layout)
    indices = unwritten(case.output_shape, torch.int64, layout, device)
    kernels.max_pool_indices(argmax, indices, case.geometry, layout)
    assert torch.equal(y.cpu(), expected)
    assert torch.equal(indices.cpu(), expected_indices)


@cases
@layouts
@dtypes
def test_backward_and_gather(kernels, device, case: PoolCase, layout: Layout, dtype: torch.dtype) -> None:
    x = small_integers(case.input_shape, dtype, seed=1)
    dy = small_integers(case.output_shape, dtype, seed=2)
    probe = small_integers(case.input_shape, dtype, seed=3, bound=9)
    leaf = x.double().requires_grad_()
    y, indices = reference(case, leaf)
    (expected,) = torch.autograd.grad(y, leaf, dy.double())

    _, argmax = pooled(kernels, case, place(x, layout, device), layout)
    dx = unwritten(case.input_shape, dtype, layout, device)
    kernels.max_pool_backward(place(dy, layout, device), argmax, dx, case.geometry, layout)
    assert torch.equal(dx.cpu(), expected.to(dtype))

    gathered = unwritten(case.output_shape, dtype, layout, device)
    kernels.max_pool_gather(place(probe, layout, device), argmax, gathered, case.geometry, layout)
    assert torch.equal(gathered.cpu(), probe.flatten(2).gather(2, indices.flatten(2)).view(case.output_shape))


@cases
@layouts
@dtypes
def test_unpool(kernels, device, case: PoolCase, layout: Layout, dtype: torch.dtype) -> None:
    x = small_integers(case.input_shape, dtype, seed=1)
    y, indices = reference(case, x)
    expected = torch.zeros(case.input_shape, dtype=dtype)
    flat = expected.flatten(2)  # a view: overlapping windows repeat an index, and repeat the same value
    for place_in_order in range(indices.flatten(2).shape[2]):
        flat.scatter_(2, indices.flatten(2)[:, :, place_in_order, None], y.flatten(2)[:, :, place_in_order, None])

    out = unwritten(case.input_shape, dtype, layout, device)
    winner = torch.zeros(case.input_shape, dtype=torch.int32, device=device).to(memory_format=layout.memory_format)
    kernels.max_unpool_forward(place(y, layout, device), place(indices, layout, device), winner, out, layout)
    assert torch.equal(out.cpu(), expected)

    probe = small_integers(case.input_shape, dtype, seed=3, bound=9)
    back = unwritten(case.output_shape, dtype, layout, device)
    kernels.max_unpool_backward(place(probe, layout, device), place(indices, layout, device), back, layout)
    assert torch.equal(back.cpu(), probe.flatten(2).gather(2, indices.flatten(2)).view(case.output_shape))
