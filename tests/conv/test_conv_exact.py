"""Every case on small integers: any order of summation gives the same bits, so equality without tolerance."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import CONV2D, ConvCase
from cnnkernels.testing.numerics import small_integers

pytestmark = pytest.mark.long

cases = pytest.mark.parametrize("case", CONV2D, ids=str)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
dtypes = pytest.mark.parametrize("dtype", list(PRODUCTS))


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout, device: str) -> Tensor:
    return torch.full(shape, float("nan"), dtype=dtype, device=device).to(memory_format=layout.memory_format)


def place(tensor: Tensor, layout: Layout, device: str) -> Tensor:
    return tensor.to(device).to(memory_format=layout.memory_format)


def reference(case: ConvCase, x: Tensor, w: Tensor) -> Tensor:
    top, bottom, left, right = case.padding
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(padded, w, stride=case.stride, dilation=case.dilation, groups=case.groups)


@cache
def operands(case: ConvCase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """fp64: integers small enough for sums to be exact in fp32 and, in magnitude, to be stored in 16 bits."""
    x = small_integers(case.input_shape, torch.float64, seed=1)
    w = small_integers(case.weight_shape, torch.float64, seed=2, bound=1)
    b = small_integers((case.k,), torch.float64, seed=3)
    dy = small_integers(case.output_shape, torch.float64, seed=4, bound=1)
    return x, w, b, dy


@cache
def expected(case: ConvCase) -> tuple[Tensor, Tensor, Tensor]:
    """The forward without a bias, and both gradients."""
    x, w, _, dy = operands(case)
    leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = reference(case, *leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, dy)


@cases
@layouts
@dtypes
@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
def test_forward(kernels, device, case: ConvCase, layout: Layout, dtype: str, with_bias: bool) -> None:
    torch_dtype, tf32 = PRODUCTS[dtype]
    x, w, b, _ = operands(case)
    true = expected(case)[0] + (b.view(-1, 1, 1) if with_bias else 0)
    x, w = (place(t.to(torch_dtype), layout, device) for t in (x, w))
    bias = b.to(torch_dtype).to(device) if with_bias else None
    y = unwritten(case.output_shape, torch_dtype, layout, device)
    kernels.conv_forward(x, w, bias, y, case.geometry, layout, tf32)
    assert torch.equal(y.cpu(), true.to(torch_dtype))


@cases
@layouts
@dtypes
def test_backward_input(kernels, device, case: ConvCase, layout: Layout, dtype: str) -> None:
    torch_dtype, tf32 = PRODUCTS[dtype]
    _, w, _, dy = operands(case)
    w, dy = (place(t.to(torch_dtype), layout, device) for t in (w, dy))
    dx = unwritten(case.input_shape, torch_dtype, layout, device)
    kernels.conv_backward_input(dy, w, dx, case.geometry, layout, tf32)
    assert torch.equal(dx.cpu(), expected(case)[1].to(torch_dtype))


@cases
@layouts
@dtypes
def test_backward_weight(kernels, device, case: ConvCase, layout: Layout, dtype: str) -> None:
    torch_dtype, tf32 = PRODUCTS[dtype]
    x, _, _, dy = operands(case)
    x, dy = (place(t.to(torch_dtype), layout, device) for t in (x, dy))
    dw = unwritten(case.weight_shape, torch_dtype, layout, device)
    kernels.conv_backward_weight(dy, x, dw, case.geometry, layout, tf32)
    assert torch.equal(dw.cpu(), expected(case)[2].to(torch_dtype))


@cases
@layouts
@pytest.mark.parametrize("dtype", [d for d in PRODUCTS if d != "tf32"])
def test_backward_bias(kernels, device, case: ConvCase, layout: Layout, dtype: str) -> None:
    torch_dtype, _ = PRODUCTS[dtype]
    _, _, _, dy = operands(case)
    db = torch.full((case.k,), float("nan"), dtype=torch_dtype, device=device)
    kernels.conv_backward_bias(place(dy.to(torch_dtype), layout, device), db, case.geometry, layout)
    assert torch.equal(db.cpu(), dy.sum((0, 2, 3)).to(torch_dtype))


@layouts
@pytest.mark.parametrize("k", [24, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_backward_bias_in_parts(kernels, device, k: int, dtype: torch.dtype, layout: Layout) -> None:
    """Parts of uneven length, one of loads that are not whole; and the same bits of floats wherever they lie."""
    case = ConvCase("", 2, 1, 95, 101, k, 1, 1)
    dy = small_integers(case.output_shape, torch.float64, seed=4, bound=1)
    db = torch.empty(k, dtype=dtype, device=device)
    kernels.conv_backward_bias(place(dy.to(dtype), layout, device), db, case.geometry, layout)
    assert torch.equal(db.cpu(), dy.sum((0, 2, 3)).to(dtype))

    floats = place(torch.randn(case.output_shape, generator=torch.Generator().manual_seed(5)).to(dtype), layout, device)
    apart = torch.empty(floats.numel() + 1, dtype=dtype, device=device)[1:].as_strided(floats.shape, floats.stride())
    moved = torch.empty_like(db)
    kernels.conv_backward_bias(floats, db, case.geometry, layout)
    kernels.conv_backward_bias(apart.copy_(floats), moved, case.geometry, layout)
    assert torch.equal(db, moved)
