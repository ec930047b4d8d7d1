"""The border of the padding modes other than zeros, and the folding of its gradient, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from cnnkernels.ops.border import add_border, fold_border
from cnnkernels.testing.numerics import small_integers

modes = pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
# (left, right, top, bottom) on 4 rows of 5: none, one side, uneven, the most that reflect takes, and circular.
BORDERS = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 2, 1, 3), (4, 4, 3, 3), (5, 1, 0, 4)]
borders = pytest.mark.parametrize("padding", BORDERS, ids=str)


@modes
@borders
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5)], ids=["batch", "image"])
def test_values_and_gradients_are_pytorchs(device: str, mode: str, padding: tuple[int, ...], shape: tuple) -> None:
    if mode == "reflect" and padding[0] > 4:
        with pytest.raises(RuntimeError, match="less than the corresponding input dimension"):
            add_border(torch.zeros(shape, device=device), padding, mode)
        return
    x = small_integers(shape, torch.float64, 0).to(device).requires_grad_()
    expected, ours = F.pad(x, padding, mode), add_border(x, padding, mode)
    assert torch.equal(ours, expected)
    grad = small_integers(tuple(expected.shape), torch.float64, 1).to(device)
    (theirs,) = torch.autograd.grad(expected, x, grad)
    (mine,) = torch.autograd.grad(ours, x, grad)
    assert torch.equal(mine, theirs)
    if len(shape) == 4:
        assert torch.equal(fold_border(grad, padding, mode), theirs)


@modes
def test_derivatives_of_every_order_in_both_modes(mode: str) -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    padding = (1, 2, 3, 0)
    assert gradcheck(lambda t: add_border(t * t, padding, mode), x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(lambda t: add_border(t * t, padding, mode), x)
    with dual_level():
        tangent = torch.randn_like(x)
        pushed = unpack_dual(add_border(make_dual(x.detach(), tangent), padding, mode)).tangent
    assert torch.equal(pushed, F.pad(tangent, padding, mode))


@modes
def test_traced_and_batched(mode: str) -> None:
    x, padding = torch.randn(3, 2, 4, 5), (1, 2, 2, 1)
    assert torch.equal(torch.func.vmap(lambda t: add_border(t, padding, mode))(x), F.pad(x, padding, mode))
    traced = torch.compile(lambda t: add_border(t, padding, mode), fullgraph=True, backend="aot_eager")
    y = x.clone().requires_grad_()
    traced(y).square().sum().backward()
    z = x.clone().requires_grad_()
    F.pad(z, padding, mode).square().sum().backward()
    torch.testing.assert_close(y.grad, z.grad)


@pytest.mark.gpu
@modes
def test_the_gradient_is_reproducible_on_a_gpu(mode: str) -> None:
    grad = torch.randn(8, 64, 70, 70, device="cuda")
    first = fold_border(grad, (7, 7, 7, 7), mode)
    assert all(torch.equal(first, fold_border(grad, (7, 7, 7, 7), mode)) for _ in range(10))
