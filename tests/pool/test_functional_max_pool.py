"""functional.max_pool2d and max_unpool2d against torch.nn.functional's: every way to call them, every layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers
from helpers.memory_orders.views import SHAPES, views

CHANNELS_LAST = torch.channels_last
NAN, INF = float("nan"), float("inf")
CALLS = {
    "kernel of one int": ((2, 3, 5, 6), (2,), {}),
    "kernel of a pair": ((2, 3, 5, 6), ((3, 2),), {}),
    "kernel of one in a tuple": ((2, 3, 5, 6), ((2,),), {}),
    "stride": ((2, 3, 5, 6), (3, (2, 1)), {}),
    "empty stride is the kernel": ((2, 3, 5, 6), (2, ()), {}),
    "stride above the kernel": ((2, 3, 7, 9), (2, (3, 4)), {}),
    "padding": ((2, 3, 5, 6), (3, 2, 1), {}),
    "dilation": ((2, 3, 7, 9), (3, 1, 1, (2, 3)), {}),
    "ceil_mode": ((2, 3, 5, 6), (2,), {"ceil_mode": True, "stride": 2}),
    "ceil_mode drops a window that starts in the padding": ((1, 1, 3, 3), (2, 3, 1), {"ceil_mode": True}),
    "unbatched": ((3, 5, 6), (2,), {}),
    "window of the input": ((2, 3, 5, 6), ((5, 6),), {}),
    "argmax of two bytes": ((1, 2, 17, 17), (16, 1), {}),
}
calls = pytest.mark.parametrize(("shape", "window", "options"), CALLS.values(), ids=CALLS)


def tied(shape: tuple[int, ...], device: str) -> Tensor:
    return small_integers(shape, torch.float32, 1).to(device)


@calls
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_value_indices_and_gradient(kernel_backend, device, shape, window, options, memory_format) -> None:
    x = tied(shape, device)
    x = x.to(memory_format=memory_format) if x.dim() == 4 else x
    results = []
    for max_pool2d, backend in ((F.max_pool2d, "reference"), (functional.max_pool2d, kernel_backend)):
        leaf = x.detach().clone().requires_grad_()
        with use_backend(backend):
            y, indices = max_pool2d(leaf, *window, return_indices=True, **options)
        probe = small_integers(tuple(y.shape), torch.float32, 2).to(device)
        results.append((y, indices, *torch.autograd.grad(y, leaf, probe)))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride() and ours.dtype == theirs.dtype


def test_forms_of_the_call(kernel_backend, device) -> None:
    x = tied((1, 2, 5, 6), device)
    with use_backend(kernel_backend):
        values, indices = functional.max_pool2d_with_indices(x, 2, 1, 1, 1, True)
        assert torch.equal(values, functional.max_pool2d(x, 2, 1, 1, 1, True))
        assert torch.equal(indices, functional.max_pool2d(x, 2, 1, 1, 1, True, True)[1])
    assert torch.equal(indices, F.max_pool2d_with_indices(x, 2, 1, 1, 1, True)[1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_lies_in_memory_as_pytorchs(recorded, shape: tuple[int, ...]) -> None:
    for name, x in views(torch.zeros(shape)):
        window = min(2, shape[2]), min(2, shape[3])
        with use_backend("cuda"):
            ours = functional.max_pool2d(x, window, return_indices=True)
        for mine, theirs in zip(ours, F.max_pool2d(x, window, return_indices=True), strict=True):
            assert mine.stride() == theirs.stride() and mine.dtype == theirs.dtype, f"{name} {x.stride()}"


def test_unbatched_output_is_contiguous_as_pytorchs(kernel_backend, device) -> None:
    x = tied((5, 6, 3), device).permute(2, 0, 1)
    with use_backend(kernel_backend):
        ours = functional.max_pool2d(x, 2)
    theirs = F.max_pool2d(x, 2)
    assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


@pytest.mark.parametrize("kind", [name for name, _ in views(torch.zeros(2, 2, 2, 2))])
def test_values_of_any_view(kernel_backend, device, kind: str) -> None:
    x = dict(views(tied((2, 3, 4, 5), device)))[kind]
    with use_backend(kernel_backend):
        ours = functional.max_pool2d(x, 2, return_indices=True)
    for mine, theirs in zip(ours, F.max_pool2d(x, 2, return_indices=True), strict=True):
        assert torch.equal(mine, theirs)


def test_gradient_has_its_inputs_strides(recorded) -> None:
    for name, x in views(torch.zeros(2, 4, 5, 6)):
        leaf = x.detach().requires_grad_()
        with use_backend("cuda"):
            (grad,) = torch.autograd.grad(functional.max_pool2d(leaf, 2).sum(), leaf)
        if not any(word in name for word in ("wider", "more", "expanded")):
            assert grad.stride() == x.stride(), name


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_nan_and_infinities(kernel_backend, device, ceil_mode: bool) -> None:
    """The last NaN of a window wins, -inf alone gives the first place inside."""
    x = torch.tensor([[NAN, 1, -INF, -INF, 3], [2, NAN, -INF, -INF, NAN], [-INF, INF, -0.0, 0.0, 1]], device=device)
    arguments = (2, 1, 1, 1, ceil_mode, True)
    with use_backend(kernel_backend):
        values, indices = functional.max_pool2d(x[None, None], *arguments)
    expected, places = F.max_pool2d(x[None, None], *arguments)
    assert torch.equal(values.nan_to_num(99), expected.nan_to_num(99))
    assert torch.equal(indices, places)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(kernel_backend, device, dtype: torch.dtype) -> None:
    x = tied((1, 3, 4, 4), device).to(dtype).requires_grad_()
    with use_backend(kernel_backend):
        y = functional.max_pool2d(x, 3, 1)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype is dtype and grad.dtype is dtype
    assert torch.equal(y, F.max_pool2d(x, 3, 1))


def test_empty_batch(kernel_backend, device) -> None:
    x = torch.zeros(0, 3, 4, 4, device=device, requires_grad=True)
    with use_backend(kernel_backend):
        y, indices = functional.max_pool2d(x, 2, return_indices=True)
        assert y.shape == indices.shape == (0, 3, 2, 2)
        assert functional.max_unpool2d(y, indices, 2).shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape


UNPOOLS = {
    "defaults": ((2, 3, 4, 6), (2,), {}),
    "output_size of two": ((2, 3, 5, 7), (2,), {"output_size": (5, 7)}),
    "output_size of the whole shape": ((2, 3, 5, 7), (2,), {"output_size": torch.Size((2, 3, 5, 7))}),
    "stride and padding": ((2, 3, 6, 6), (3, 2, 1), {"output_size": [6, 6]}),
    "unbatched": ((3, 4, 6), (2,), {}),
}


@pytest.mark.parametrize(("shape", "window", "options"), UNPOOLS.values(), ids=UNPOOLS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_unpool(kernel_backend, device, shape, window, options, memory_format) -> None:
    x = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0)).float().view(shape)
    x = x.to(device, memory_format=memory_format) if x.dim() == 4 else x.to(device)
    pooled, indices = F.max_pool2d(x, *window, return_indices=True)
    results = []
    for max_unpool2d, backend in ((F.max_unpool2d, "reference"), (functional.max_unpool2d, kernel_backend)):
        leaf = pooled.detach().clone().requires_grad_()
        with use_backend(backend):
            y = max_unpool2d(leaf, indices, *window, **options)
        probe = small_integers(tuple(y.shape), torch.float32, 2).to(device)
        results.append((y, *torch.autograd.grad(y, leaf, probe)))
    (theirs, their_grad), (ours, grad) = results
    assert torch.equal(ours, theirs) and torch.equal(grad, their_grad)
    assert grad.stride() == pooled.stride()
    if x.device.type == "cpu":  # PyTorch's CUDA operator returns contiguous tensors always
        assert ours.stride() == theirs.stride()


def test_unpool_of_repeated_indices_is_decided(kernel_backend, device) -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device)[None, None]
    indices = torch.tensor([[5, 7], [5, 5]], device=device)[None, None]
    with use_backend(kernel_backend):
        y = functional.max_unpool2d(values, indices, 2).flatten()
    assert y[5] == 4 and y[7] == 2 and y.sum() == 6


def test_pool_then_unpool_keeps_the_maxima(kernel_backend, device) -> None:
    x = tied((2, 3, 6, 6), device)
    with use_backend(kernel_backend):
        values, indices = functional.max_pool2d(x, 2, return_indices=True)
        back = functional.max_unpool2d(values, indices, 2)
        assert torch.equal(functional.max_pool2d(back.where(back != 0, -INF), 2).nan_to_num(0, neginf=0), values)
