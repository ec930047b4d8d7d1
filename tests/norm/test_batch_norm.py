"""batch_norm beyond integers: how much it rounds, its derivatives of any order, its layers, what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import nn, use_backend
from cnnkernels.functional import batch_norm
from cnnkernels.ops.norm_parts import batch_norm_statistics
from cnnkernels.testing.numerics import assert_within, rounding_bound
from tests.helpers.models.pytorch_samples import assert_rounds_as_pytorch


def random(*shape: int, seed: int = 0, **like: Any) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(**like)


@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last), ids=str)
def test_a_mean_far_from_zero(kernel_backend: str, device: str, layout: torch.memory_format) -> None:
    """Where squares less the square of the mean would leave nothing; and where the first pixel is unlike all others."""
    x = (1e4 + 1e-2 * random(3, 2, 9, 33)).float()
    x[0, :, 0, 0] = 0
    x[1, 1] += 50
    x[0, 1, 0, 0] = 1e4
    given = x.to(device).contiguous(memory_format=layout)
    true = torch.var_mean(x.double(), (0, 2, 3), correction=0)[::-1]
    theirs = torch.var_mean(x, (0, 2, 3), correction=0)[::-1]
    found = batch_norm_statistics(given, kernel_backend)
    assert all(t.std() > 0 for t in true)  # channels of both kinds
    for ours, exact, other in zip(found, true, theirs, strict=True):
        bound = rounding_bound(exact, other, x[:, 0].numel(), exact.abs(), torch.float32)
        assert_within(ours.cpu(), exact, bound, "statistics")


@pytest.mark.parametrize("activation", ("silu", "gelu", "hardswish", "relu6"))
def test_rounding(kernel_backend: str, device: str, activation: str) -> None:
    """The output and all gradients, of sizes that no vector divides and numbers of elements that are no power of 2."""
    x, residual, grad = (random(3, 5, 3, 7, seed=i) for i in range(3))
    weight, bias = random(5, seed=3), random(5, seed=4)
    of = torch.nn.functional

    def called(dtype: torch.dtype, ours: bool) -> list[Tensor]:
        tensors = [t.to(device, dtype).requires_grad_() for t in (2 * x + 1, weight, bias, residual)]
        if ours:
            with use_backend(kernel_backend):
                y = batch_norm(tensors[0], None, None, *tensors[1:3], True, activation=activation, residual=tensors[3])
        else:
            y = of.batch_norm(tensors[0], None, None, *tensors[1:3], True) + tensors[3]
            y = getattr(of, activation)(y)
        return [y.detach(), *torch.autograd.grad(y, tensors, grad.to(device, dtype))]

    true, theirs, found = called(torch.float64, False), called(torch.float32, False), called(torch.float32, True)
    for ours, exact, other in zip(found, true, theirs, strict=True):
        # of the 63 products of a sum the largest is about 10
        bound = rounding_bound(exact, other, 63, torch.full_like(exact, 10.0), torch.float32)
        assert_within(ours, exact, bound, activation)


def test_derivatives(kernel_backend: str, device: str) -> None:
    """Of first and second order, in both modes, in training and evaluation."""
    shape = (2, 2, 3, 1)
    x, residual = (random(*shape, seed=i, device=device).requires_grad_() for i in (5, 6))
    weight, bias = (random(2, seed=i, device=device).requires_grad_() for i in (7, 8))
    running = random(2, seed=9, device=device), random(2, seed=9, device=device).abs() + 1

    def called(training: bool, activation: str, *tensors: Tensor) -> Tensor:
        numbers = (None, None) if training else running
        return batch_norm(tensors[0], *numbers, *tensors[1:3], training, activation=activation, residual=tensors[3])

    with use_backend(kernel_backend):
        for training, activation in ((True, "silu"), (False, "none")):
            if kernel_backend == "triton" and not training:
                continue  # the same kernels, in an interpreter that is slow
            f, inputs = (lambda *t, a=(training, activation): called(*a, *t)), (x, weight, bias, residual)
            assert torch.autograd.gradcheck(f, inputs, check_forward_ad=True, fast_mode=True)
            if kernel_backend == "triton":
                continue
            assert torch.autograd.gradgradcheck(f, inputs, check_fwd_over_rev=True, fast_mode=True)


def test_a_gradient_to_differentiate_is_the_gradient(kernel_backend: str, device: str) -> None:
    """Both ways of the backward: the one operator, and what is made of differentiable ones."""
    of = torch.nn.functional
    for training, activation, added in ((True, "relu", True), (True, "gelu", True), (False, "relu", False)):
        numbers = random(3, seed=5), random(3, seed=6).abs()

        def gradients(dtype: torch.dtype, ours: bool, again: bool = False, case=(training, activation, added, numbers)):
            training, activation, added, numbers = case
            running = (None, None) if training else tuple(t.to(device, dtype) for t in numbers)
            shapes = (2, 3, 2, 3), (3,), (3,), (2, 3, 2, 3)
            tensors = [random(*shape, seed=i).to(device, dtype).requires_grad_() for i, shape in enumerate(shapes)]
            x, weight, bias, residual = tensors
            if ours:
                more = {"activation": activation, "residual": residual if added else None}
                y = batch_norm(x, *running, weight, bias, training, **more)
            else:
                y = of.batch_norm(x, *running, weight, bias, training)
                y = getattr(of, activation)(y + residual if added else y)
            return torch.autograd.grad(y.square().sum(), tensors if added else tensors[:3], create_graph=again)

        true, theirs = (gradients(dtype, ours=False) for dtype in (torch.float64, torch.float32))
        for again in (False, True):
            with use_backend(kernel_backend):
                found = gradients(torch.float32, True, again)
            assert all(t.requires_grad == again for t in found)
            assert_rounds_as_pytorch([t.detach() for t in found], true, theirs, 12, f"{activation}, again: {again}")


def test_vmap(kernel_backend: str, device: str) -> None:
    """Each sample by itself, with its own running statistics and gradients."""
    x, weight = random(4, 3, 2, 2, 2, seed=1, device=device), random(3, 2, seed=2, device=device)
    means, variances = torch.zeros(3, 2, device=device).double(), torch.ones(3, 2, device=device).double()
    of_loop = means.clone(), variances.clone()

    def loss(x: Tensor, weight: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        y = batch_norm(x, mean, var, weight, None, True, activation="relu")
        return y.square().sum(), y

    with use_backend(kernel_backend):
        grads, y = torch.func.vmap(torch.func.grad(loss, has_aux=True), in_dims=(1, 0, 0, 0))(
            x, weight, means, variances
        )
        for i in range(3):
            expected = torch.func.grad(loss, has_aux=True)(x[:, i], weight[i], of_loop[0][i], of_loop[1][i])
            assert torch.equal(grads[i], expected[0]) and torch.equal(y[i], expected[1])
        assert torch.equal(means, of_loop[0]) and torch.equal(variances, of_loop[1])
        with pytest.raises(RuntimeError, match=r"running_mean or running_var.* were not batched"):
            torch.func.vmap(loss, in_dims=(1, 0, None, None))(x, weight, means[0], variances[0])


def test_the_same_bits_again(kernel_backend: str, device: str) -> None:
    x = random(4, 3, 7, 5, dtype=torch.float32).to(device).requires_grad_()
    with use_backend(kernel_backend):
        runs = []
        for _ in range(2):
            y = batch_norm(x, None, None, None, None, True, activation="silu")
            runs.append((y, *torch.autograd.grad(y.square().sum(), x)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_layers(kernel_backend: str, device: str) -> None:
    """Training, evaluation, momentum None, without parameters or running statistics: PyTorch's buffers and results."""
    made = (
        {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"bias": False, "momentum": 0.5},
    )  # fmt: skip
    for i, options in enumerate(made):
        rank = 1 + i % 3
        name = f"BatchNorm{rank}d"
        ours, true, theirs = layers = [
            getattr(of, name)(4, **options).to(device, dtype)
            for of, dtype in ((nn, torch.float32), (torch.nn, torch.float64), (torch.nn, torch.float32))
        ]
        assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
        with use_backend(kernel_backend):
            for step in range(3):
                x = random(3, 4, *(2, 3, 2)[:rank], seed=step, dtype=torch.float32).to(device)
                for layer in layers:
                    layer.train(step < 2)
                results = [[y.detach()] for y in (ours(x), true(x.double()), theirs(x))]
                assert_rounds_as_pytorch(*results, x[:, 0].numel(), str(ours))
        assert_rounds_as_pytorch(*([*layer.buffers()] for layer in layers), x[:, 0].numel(), f"buffers of {ours}")


def test_a_layer_with_what_follows_it(kernel_backend: str, device: str) -> None:
    layer = nn.BatchNorm2dAct(3, activation="leaky_relu", negative_slope=0.25).to(device)
    plain = torch.nn.BatchNorm2d(3).to(device)
    plain.load_state_dict(layer.state_dict())
    assert "activation=leaky_relu, negative_slope=0.25" in repr(layer)
    x, residual = (random(2, 3, 2, 4, seed=i, dtype=torch.float32).to(device) for i in (1, 2))
    again = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    with use_backend(kernel_backend):
        y, other = layer(x, residual), again(x, residual)
    expected = torch.nn.functional.leaky_relu(plain(x) + residual, 0.25)
    torch.testing.assert_close(y, expected)
    assert torch.equal(y, other) and torch.equal(again.running_var, layer.running_var)
    with pytest.raises(ValueError, match=r"activation must be None or one of .* but got 'tanh'"):
        nn.BatchNorm2dAct(3, activation="tanh")


def test_nothing_to_normalize(kernel_backend: str, device: str) -> None:
    """An empty batch leaves running statistics as they are, and has gradients of zeros."""
    x, weight = torch.empty(0, 3, 2, 2, device=device), torch.ones(3, device=device, requires_grad=True)
    running = torch.zeros(3, device=device), torch.ones(3, device=device)
    with use_backend(kernel_backend):
        y = batch_norm(x, *running, weight, None, True, activation="relu", residual=x)
    assert y.shape == x.shape and not running[0].any() and running[1].eq(1).all()
    assert torch.equal(*torch.autograd.grad(y.sum(), weight), torch.zeros(3, device=device))


def test_not_finite(kernel_backend: str, device: str) -> None:
    """Of a channel with a NaN all is NaN, of the others nothing is."""
    x = random(2, 3, 3, 3, dtype=torch.float32).to(device)
    x[1, 1, 2, 2] = torch.nan
    running = torch.zeros(3, device=device), torch.ones(3, device=device)
    with use_backend(kernel_backend):
        y = batch_norm(x, *running, None, None, True, activation="relu")
    for t in (y.transpose(0, 1).flatten(1), *(r[:, None] for r in running)):
        assert t.isnan().all(1).tolist() == [False, True, False] and not t[::2].isnan().any()


X = torch.ones(2, 3, 4, 4)
ONES = torch.ones(3)
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "one value": (lambda: batch_norm(X[:1, :, :1, :1], None, None, None, None, True), ValueError,
                  r"Expected more than 1 value per channel when training, got input size torch.Size\(\[1, 3, 1, 1\]\)"),
    "eps": (lambda: batch_norm(X, None, None, None, None, True, eps=0.0), ValueError,
            "batch_norm eps must be positive during training, but got 0.0"),
    "eps below 0": (lambda: batch_norm(X, ONES, ONES, eps=-1.0), ValueError, "must be non-negative, but got -1.0"),
    "one of two": (lambda: batch_norm(X, ONES, None, None, None, True), ValueError, "either both be None or neither"),
    "no mean": (lambda: batch_norm(X, None, None), RuntimeError, "running_mean must be defined in evaluation mode"),
    "sizes": (lambda: batch_norm(X, torch.ones(4), ONES), RuntimeError,
              "running_mean should contain 3 elements not 4"),
    "weight": (lambda: batch_norm(X, ONES, ONES, torch.ones(2)), RuntimeError,
               "weight should contain 3 elements not 2"),
    "types": (lambda: batch_norm(X, ONES, ONES, ONES.half()), RuntimeError, "expected weight .* not torch.float16"),
    "a gradient": (lambda: batch_norm(X, ONES.clone().requires_grad_(), ONES), RuntimeError,
                   "not differentiable with respect to argument 'running_mean'"),
    "residual": (lambda: batch_norm(X, ONES, ONES, residual=X[:1]), RuntimeError,
                 r"expected residual to be of size \[2, 3, 4, 4\], but got \[1, 3, 4, 4\]"),
    "residual's type": (lambda: batch_norm(X, ONES, ONES, residual=X.double()), RuntimeError, "residual type"),
    "activation": (lambda: batch_norm(X, ONES, ONES, activation="tanh"), ValueError, "but got 'tanh'"),
    "integers": (lambda: batch_norm(X.int(), ONES, ONES), NotImplementedError, "batch_norm: .* not int32"),
    "no tensor": (lambda: batch_norm(3, ONES, ONES), TypeError, "'input' .*must be Tensor, not int"),
    "rank": (lambda: nn.BatchNorm2d(3)(X[0]), ValueError, r"expected 4D input \(got 3D input\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(kernel_backend: str, name: str) -> None:
    call, kind, message = REFUSED[name]
    with use_backend(kernel_backend), pytest.raises(kind, match=message):
        call()
