"""Derivatives of every order, in both modes, against finite differences: in fp64, on each backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers

pytestmark = pytest.mark.long

NCHW, NHWC = torch.contiguous_format, torch.channels_last
CONV2D = {
    "plain": ((1, 2, 3, 3), (2, 2, 2, 2), {}, NHWC),
    "strided": ((2, 1, 4, 5), (2, 1, 3, 2), {"stride": (2, 3), "padding": (1, 1)}, NHWC),
    "dilated": ((1, 2, 5, 4), (1, 2, 2, 2), {"dilation": (3, 2), "padding": (1, 0)}, NCHW),
    "groups": ((1, 4, 2, 3), (2, 2, 2, 2), {"groups": 2, "padding": 1, "stride": 2}, NHWC),
    "depthwise": ((1, 3, 3, 3), (3, 1, 2, 2), {"groups": 3}, NCHW),
    "depthwise strided": ((1, 2, 4, 3), (4, 1, 3, 2), {"groups": 2, "stride": (2, 1), "padding": 1}, NHWC),
    "same": ((1, 1, 3, 4), (2, 1, 2, 4), {"padding": "same"}, NCHW),
    "unbatched": ((2, 3, 3), (1, 2, 2, 2), {}, NCHW),
}
# Along random directions instead of every axis, or Triton's interpreter would take an hour.
FAST = {"fast_mode": True}


def leaf(shape: tuple[int, ...], device: str, seed: int, memory_format: torch.memory_format) -> Tensor:
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(device)
    return (values.to(memory_format=memory_format) if values.dim() == 4 else values).requires_grad_()


def distinct(shape: tuple[int, ...], device: str, memory_format: torch.memory_format) -> Tensor:
    """Values so far apart that a finite difference never changes a maximum."""
    count = torch.Size(shape).numel()
    values = torch.randperm(count, generator=torch.Generator().manual_seed(0)).double().view(shape) / 4
    return values.to(device).to(memory_format=memory_format).requires_grad_()


@pytest.fixture
def on_backend(backend: str):
    """A function that runs on the backend, whose name is the test's parameter."""
    return use_backend(backend)


@pytest.mark.parametrize(("shape", "filters", "options", "memory_format"), CONV2D.values(), ids=CONV2D)
def test_conv_first_and_second(on_backend, device, shape, filters, options, memory_format) -> None:
    @on_backend
    def call(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.conv2d(x, w, b, **options)

    x, w = leaf(shape, device, 1, memory_format), leaf(filters, device, 2, memory_format)
    b = leaf(filters[:1], device, 3, memory_format)
    assert gradcheck(call, (x, w, b), check_forward_ad=True, **FAST)
    assert gradgradcheck(call, (x, w, b), **FAST)


def test_conv_third(on_backend, device) -> None:
    @on_backend
    def gradients(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = functional.conv2d(x, w, None, 2, 1)
        return torch.autograd.grad((y**3).sum(), (x, w), create_graph=True)

    x = leaf((1, 1, 3, 3), device, 1, NCHW)
    w = leaf((1, 1, 2, 2), device, 2, NCHW)
    assert gradgradcheck(gradients, (x, w), **FAST)


def test_conv_every_axis(device) -> None:
    """The full Jacobians, and the batching rules under gradients and tangents."""

    @use_backend("cuda")
    def call(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.conv2d(x, w, b, 1, 1, 1, 2)

    x, w, b = leaf((1, 2, 2, 3), device, 1, NCHW), leaf((2, 1, 2, 2), device, 2, NCHW), leaf((2,), device, 3, NCHW)
    options = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(call, (x, w, b), **options)
    assert gradgradcheck(call, (x, w, b), check_batched_grad=True)


POOLS = {
    "disjoint": ((1, 2, 4, 4), (2,), {}, NHWC),
    "overlapping": ((1, 2, 5, 5), (3,), {"stride": 2, "padding": 1}, NHWC),
    "dilated": ((1, 1, 6, 5), ((2, 3),), {"stride": 1, "dilation": (3, 2), "padding": (1, 1)}, NCHW),
    "ceil": ((1, 2, 5, 4), (2,), {"ceil_mode": True}, NCHW),
}


@pytest.mark.parametrize(("shape", "window", "options", "memory_format"), POOLS.values(), ids=POOLS)
def test_max_pool_first_and_second(on_backend, device, shape, window, options, memory_format) -> None:
    @on_backend
    def call(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, *window, **options)

    x = distinct(shape, device, memory_format)
    assert gradcheck(call, x, check_forward_ad=True, **FAST)
    # pooling is piecewise linear: the cube gives its second derivative something to see
    assert gradgradcheck(lambda x: call(x) ** 3, x, **FAST)


def test_max_pool_every_axis(device) -> None:
    """The full Jacobians of overlapping windows, and the batching rules under gradients and tangents."""

    @use_backend("cuda")
    def cube(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, 1) ** 3

    x = distinct((1, 2, 4, 3), device, NCHW)
    options = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(cube, x, **options)
    assert gradgradcheck(cube, x, check_batched_grad=True)


def test_max_pool_third(on_backend, device) -> None:
    @on_backend
    def gradient(x: Tensor) -> Tensor:
        y = functional.max_pool2d(x, 3, 2, 1)
        return torch.autograd.grad((y**4).sum(), x, create_graph=True)[0]

    assert gradgradcheck(gradient, distinct((1, 1, 3, 3), device, NHWC), **FAST)


AVERAGES = {
    "disjoint": ((1, 2, 4, 4), lambda x: functional.avg_pool2d(x, 2), NHWC),
    "padded": ((1, 2, 5, 4), lambda x: functional.avg_pool2d(x, 3, 2, 1, True, False), NCHW),
    "divisor": ((1, 1, 4, 5), lambda x: functional.avg_pool2d(x, (2, 3), 1, divisor_override=-5), NHWC),
    "bins": ((1, 2, 5, 4), lambda x: functional.adaptive_avg_pool2d(x, (3, 5)), NHWC),
    "global": ((1, 2, 3, 4), lambda x: functional.adaptive_avg_pool2d(x, 1), NCHW),
}


@pytest.mark.parametrize(("shape", "call", "memory_format"), AVERAGES.values(), ids=AVERAGES)
def test_averages_first_and_second(on_backend, device, shape, call, memory_format) -> None:
    x = leaf(shape, device, 1, memory_format)
    options = {"check_batched_grad": True, "check_forward_ad": True, "check_batched_forward_grad": True}
    assert gradcheck(on_backend(call), x, **options, **FAST)
    # averages are linear: the cube gives their second derivative something to see
    assert gradgradcheck(lambda x: on_backend(call)(x) ** 3, x, **FAST)


def test_max_unpool2d(on_backend, device) -> None:
    values, indices = F.max_pool2d(distinct((1, 2, 4, 4), device, NCHW), 2, return_indices=True)
    values = values.detach().requires_grad_()

    @on_backend
    def call(values: Tensor) -> Tensor:
        return functional.max_unpool2d(values, indices, 2)

    assert gradcheck(call, values, check_forward_ad=True, **FAST)
    assert gradgradcheck(lambda values: call(values) ** 3, values, **FAST)


def test_max_unpool_second_derivative_adds_where_indices_repeat(kernel_backend, device) -> None:
    indices = torch.tensor([0, 5, 5, 3], device=device).view(1, 1, 2, 2)
    grad_output = torch.arange(16.0, device=device).view(1, 1, 4, 4).requires_grad_()
    values = torch.ones(1, 1, 2, 2, device=device, requires_grad=True)
    with use_backend(kernel_backend):
        output = functional.max_unpool2d(values, indices, 2)
    (grad,) = torch.autograd.grad(output, values, grad_output, create_graph=True)
    assert grad.flatten().tolist() == [0, 5, 5, 3]
    (second,) = torch.autograd.grad(grad, grad_output, torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]], device=device))
    assert second.flatten().nonzero().flatten().tolist() == [0, 3, 5]
    assert second.flatten()[[0, 3, 5]].tolist() == [1, 8, 6]


def asked(recorded, names: Callable[[Tensor, Tensor, Tensor], list[Tensor]]) -> list[str]:
    x, w, b = (torch.zeros(shape) for shape in ((1, 2, 3, 3), (3, 2, 2, 2), (3,)))
    for tensor in names(x, w, b):
        tensor.requires_grad_()
    with use_backend("cuda"):
        functional.conv2d(x, w, b).sum().backward()
    return [call.name for call in recorded[1:]]


@pytest.mark.parametrize(
    ("wanted", "kernels"),
    [
        ("x", ["conv_backward_input"]),
        ("w", ["conv_backward_weight"]),
        ("b", ["conv_backward_bias"]),
        ("wb", ["conv_backward_weight", "conv_backward_bias"]),
        ("xw", ["conv_backward_input", "conv_backward_weight"]),
    ],
)
def test_no_gradient_is_computed_that_nobody_asked_for(recorded, wanted: str, kernels: list[str]) -> None:
    assert (
        asked(recorded, lambda x, w, b: [dict(zip("xwb", (x, w, b), strict=True))[name] for name in wanted]) == kernels
    )


def saved(tensor: Tensor) -> list[Tensor]:
    return [value for value in tensor.grad_fn.saved_tensors if value is not None]


def test_nothing_is_saved_that_nobody_needs(recorded) -> None:
    x, w = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 2, 2)
    with use_backend("cuda"):
        of_input = functional.conv2d(x.clone().requires_grad_(), w)
        assert [t.data_ptr() for t in saved(of_input)] == [w.data_ptr()]
        of_weight = functional.conv2d(x, w.clone().requires_grad_())
        assert [t.data_ptr() for t in saved(of_weight)] == [x.data_ptr()]
        pooled = functional.max_pool2d(x.clone().requires_grad_(), 2)
        assert [t.dtype for t in saved(pooled)] == [torch.uint8]
        with torch.no_grad():
            assert functional.conv2d(x, w.clone().requires_grad_()).grad_fn is None
        with torch.inference_mode():
            assert functional.max_pool2d(x, 2).is_inference()


def test_indices_are_not_differentiable(kernel_backend, device) -> None:
    with use_backend(kernel_backend):
        values, indices = functional.max_pool2d(distinct((1, 1, 4, 4), device, NCHW), 2, return_indices=True)
    assert values.requires_grad and not indices.requires_grad


def test_accumulates_and_retains(kernel_backend, device) -> None:
    """Two backward passes through one graph add up to exactly twice the first."""
    x = small_integers((1, 2, 4, 4), torch.float32, 1).to(device).requires_grad_()
    w = small_integers((2, 2, 3, 3), torch.float32, 2).to(device).requires_grad_()
    with use_backend(kernel_backend):
        output = functional.max_pool2d(functional.conv2d(x, w, padding=1), 2).sum()
    output.backward(retain_graph=True)
    first = w.grad.clone(), x.grad.clone()
    output.backward()
    assert torch.equal(w.grad, 2 * first[0]) and torch.equal(x.grad, 2 * first[1])
