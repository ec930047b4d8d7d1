"""Pooling in one axis against torch.nn.functional's: planes of one row on the kernels of pool2d, nothing copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers

# "of PyTorch": torch.testing's samples of these operators, or some of them.
CALLS: dict[str, tuple[tuple[int, ...], str, tuple[Any, ...], dict[str, Any]]] = {
    "of PyTorch 1": ((2, 3, 9), "avg_pool1d", ((3,),), {}),
    "of PyTorch 2": ((1, 3, 9), "avg_pool1d", (3, 1, 1, True, False), {}),
    "of PyTorch 3": ((1, 3, 9), "avg_pool1d", ((6,), (3,), (2,), True, True), {}),
    "of PyTorch 4": ((2, 3, 9), "avg_pool1d", ((3,), (1,), (1,), False, True), {}),
    "of PyTorch 5": ((0, 3, 9), "avg_pool1d", ((6,), (3,), (2,), False, True), {}),
    "of PyTorch 6": ((1, 2, 9), "avg_pool1d", ((7,), (3,), (2,)), {"ceil_mode": False}),
    "of PyTorch 7": ((1, 2, 9), "avg_pool1d", ((7,), (3,), (3,)), {"ceil_mode": True}),
    "of PyTorch 8": ((1, 2, 9), "avg_pool1d", ((7,),), {"stride": (3,), "ceil_mode": False}),
    "of PyTorch 9": ((1, 2, 9), "avg_pool1d", ((7,),), {"stride": (3,), "ceil_mode": True}),
    "means unbatched": ((3, 9), "avg_pool1d", (2,), {"stride": ()}),
    "a discriminator's": ((2, 1, 64), "avg_pool1d", (4, 2, 2), {}),
    "bins of PyTorch 1": ((0, 8, 8), "adaptive_avg_pool1d", ((5,),), {}),
    "bins of PyTorch 2": ((8, 8), "adaptive_avg_pool1d", ((5,),), {}),
    "bins of PyTorch 3": ((3, 8, 8), "adaptive_avg_pool1d", (5,), {}),
    "bins of PyTorch 4": ((8, 8), "adaptive_avg_pool1d", (5,), {}),
    "bins of PyTorch 5": ((3, 8, 8), "adaptive_avg_pool1d", (1,), {}),
    "bins of PyTorch 6": ((8, 8), "adaptive_avg_pool1d", (1,), {}),
    "more bins than places": ((2, 4, 5), "adaptive_avg_pool1d", (7,), {}),
    "maxima": ((2, 3, 9), "max_pool1d", (2,), {}),
    "maxima unbatched": ((3, 9), "max_pool1d", ((3,), (2,), (1,)), {}),
    "maxima of a dilated window": ((2, 8, 11), "max_pool1d", (3, 1, 1, 3, True), {}),
    "maxima of no samples": ((0, 3, 9), "max_pool1d", (3, 2), {}),
}
calls = pytest.mark.parametrize(("shape", "name", "args", "kwargs"), CALLS.values(), ids=CALLS)


def places_side_by_side(x: Tensor) -> Tensor:
    return x.contiguous()


def channels_side_by_side(x: Tensor) -> Tensor:
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


orders = pytest.mark.parametrize("order", [places_side_by_side, channels_side_by_side], ids=["ncl", "nlc"])


@calls
@orders
def test_value_and_gradient(kernel_backend, device, shape, name, args, kwargs, order) -> None:
    """Both orders of memory stay what they are, in the output of a batch and in the gradient."""
    x = order(small_integers(shape, torch.float64, 1))
    results = []
    for f, backend, of in ((F, "reference", x), (functional, kernel_backend, x.to(device))):
        leaf = of.detach().clone().requires_grad_()
        with use_backend(backend):
            y = getattr(f, name)(leaf, *args, **kwargs)
        probe = small_integers(tuple(y.shape), torch.float64, 2).to(of.device)
        results.append((y, torch.autograd.grad(y, leaf, probe)[0]))
    (y, gradient), (ours, our_gradient) = results
    torch.testing.assert_close(ours.cpu(), y)
    torch.testing.assert_close(our_gradient.cpu(), gradient)
    assert our_gradient.stride() == x.stride()
    if x.dim() == 3 and y.numel() and min(x.shape[1], y.shape[2]) > 1:
        assert ours.stride() == order(torch.empty(y.shape)).stride()


@orders
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_maxima_and_their_places(kernel_backend, device, dtype: torch.dtype, order) -> None:
    x = order(small_integers((2, 8, 13), dtype, 1))  # few values: many ties
    for args in ((2,), (3, 2, 1), (3, 1, 1, 2, True), (13,)):
        expected = F.max_pool1d(x, *args, return_indices=True)
        with use_backend(kernel_backend):
            both = functional.max_pool1d(x.to(device), *args, return_indices=True)
            again = functional.max_pool1d_with_indices(x.to(device), *args)
        for ours, theirs, other in zip(both, expected, again, strict=True):
            assert torch.equal(ours.cpu(), theirs) and torch.equal(other, ours) and ours.dtype is theirs.dtype


@orders
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_means_of_integers_are_exact(kernel_backend, device, dtype: torch.dtype, order) -> None:
    x = order(small_integers((2, 8, 13), dtype, 1))
    for args in ((3, 2, 1), (3, 2, 1, True, False), (5, 3, 2, True)):
        with use_backend(kernel_backend):
            y = functional.avg_pool1d(x.to(device), *args)
        assert torch.equal(y.cpu(), F.avg_pool1d(x, *args))


def test_nothing_is_copied(recorded) -> None:
    """A backend gets the input's own memory, as planes of one row."""
    for x in (torch.zeros(2, 8, 13), channels_side_by_side(torch.zeros(2, 8, 13))):
        with use_backend("cuda"):
            functional.avg_pool1d(x, 3)
            functional.adaptive_avg_pool1d(x, 4)
            functional.max_pool1d(x, 3)
        assert [call.arguments[0].data_ptr() for call in recorded] == [x.data_ptr()] * 3
        recorded.clear()


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg_pool1d": lambda x: functional.avg_pool1d(x, 3, 2, 1, True, False),
    "adaptive_avg_pool1d": lambda x: functional.adaptive_avg_pool1d(x, 3),
    "max_pool1d": lambda x: functional.max_pool1d(x, 3, 2, 1),
}


@pytest.mark.parametrize("name", POOLS)
@orders
def test_derivatives(kernel_backend, device, name: str, order) -> None:
    """Of first and second order, in both modes and batched."""
    apart = torch.randperm(14, generator=torch.Generator().manual_seed(0)).double().view(1, 2, 7) / 4
    x = order(apart).to(device).requires_grad_()
    options = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    with use_backend(kernel_backend):
        assert gradcheck(POOLS[name], x, fast_mode=True, **options)
        assert gradgradcheck(lambda x: POOLS[name](x) ** 3, x, fast_mode=True)
        samples = torch.stack([x.detach(), 2 * x.detach()], 1)
        batched = torch.func.vmap(POOLS[name], in_dims=1)(samples)
        assert torch.equal(batched, torch.stack([POOLS[name](samples[:, i]) for i in range(2)]))


ERRORS: dict[str, tuple[Callable[[Any, Tensor], Any], str, str]] = {
    "means of one axis": (lambda f, x: f.avg_pool1d(x[0, 0], 2), "Expected 2 to 3 dimensions", "[9]"),
    "means of two kernels": (lambda f, x: f.avg_pool1d(x, (2, 2)), "should contain one int", "kernel_size=(2, 2)"),
    "means of two strides": (lambda f, x: f.avg_pool1d(x, 2, (2, 2)), "should contain one int", "stride=(2, 2)"),
    "means with padding below 0": (lambda f, x: f.avg_pool1d(x, 2, 50, -1), "pad must be non-negative", "-1"),
    "means with padding above half": (lambda f, x: f.avg_pool1d(x, 2, 50, 4), "pad should be at most half of", "4"),
    "means of too few": (lambda f, x: f.avg_pool1d(x, 22), "Output size is too small", "1x0"),
    "means of a float": (lambda f, x: f.avg_pool1d(x, 1.5), "avg_pool1d()", "kernel_size=1.5"),
    "means of no places": (lambda f, x: f.avg_pool1d(x[..., :0], 2), "Expected 3D or 4D", "[2, 3, 1, 0]"),
    "no sizes": (lambda f, x: f.adaptive_avg_pool1d(x, ()), "should contain one int", "output_size=()"),
    "size below 0": (
        lambda f, x: f.adaptive_avg_pool1d(x, (-1,)),
        "elements of output_size must be greater than or equal to 0",
        "-1",
    ),
    "size of None": (lambda f, x: f.adaptive_avg_pool1d(x, None), "adaptive_avg_pool1d()", "output_size=None"),
    "bins of four axes": (lambda f, x: f.adaptive_avg_pool1d(x[None], 2), "Expected 2 to 3 dimensions", "[1, 2, 3, 9]"),
    "maxima of one axis": (lambda f, x: f.max_pool1d(x[0, 0], 2), "Expected 2D or 3D (batch mode) tensor", "[9]"),
    "maxima of two kernels": (lambda f, x: f.max_pool1d(x, (2, 2)), "kernel_size", "(2, 2)"),
    "maxima with padding above half": (lambda f, x: f.max_pool1d(x, 3, 1, 2), "should be at most half of", "2"),
    "maxima of too few": (lambda f, x: f.max_pool1d(x, 22), "output size", "1x0"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_errors_are_pytorchs(recorded, backend: str, name: str) -> None:
    call, words, named = ERRORS[name]
    x = torch.zeros(2, 3, 9)
    with pytest.raises(Exception) as theirs:
        call(F, x)
    with use_backend(backend), pytest.raises(type(theirs.value)) as ours:
        call(functional, x)
    assert words.lower() in str(theirs.value).lower() and words.lower() in str(ours.value).lower()
    assert named in str(ours.value)
    assert not recorded
