"""PyTorch's own samples of batch_norm and its layers, and its wrong inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import nn, use_backend
from cnnkernels.functional import batch_norm
from tests.helpers.models.pytorch_samples import assert_rounds_as_pytorch, pytorch_samples

pytestmark = pytest.mark.long

NAMES = tuple(f"{lazy}BatchNorm{rank}d" for lazy in ("", "Lazy") for rank in (1, 2, 3))


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, Any]]:
    with pytorch_samples() as samples:
        yield samples


def a_channel(x: Tensor) -> int:
    return x.numel() // x.shape[1] if x.dim() > 1 and x.numel() else 1


def test_samples(database: Any, kernel_backend: str, device: str) -> None:
    """The output, all gradients and what became of the running statistics."""
    torch.manual_seed(0)
    info = database["batch_norm"]
    samples = list(info.sample_inputs(device, torch.float64, requires_grad=False))
    assert len(samples) >= 10 and {bool(s.kwargs.get("training")) for s in samples} == {True, False}

    def called(function: Any, sample: Any, grad: Tensor, dtype: torch.dtype) -> list[Tensor]:
        given = [t if t is None else t.detach().to(dtype, copy=True) for t in (sample.input, *sample.args)]
        x, mean, var, weight, bias = given
        tensors = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
        y = function(x, mean, var, weight, bias, **sample.kwargs)
        running = [t for t in (mean, var) if t is not None]
        return [y.detach(), *torch.autograd.grad(y, tensors, grad.to(dtype)), *running]

    for sample in samples:
        grad = torch.randn_like(sample.input)
        true, theirs = (called(info.op, sample, grad, dtype) for dtype in (torch.float64, torch.float32))
        with use_backend(kernel_backend):
            found = called(batch_norm, sample, grad, torch.float32)
        assert_rounds_as_pytorch(found, true, theirs, a_channel(sample.input), str(sample))


@pytest.mark.parametrize("name", NAMES)
def test_layers(database: Any, kernel_backend: str, device: str, name: str) -> None:
    """In training, then in evaluation: outputs, gradients of the input, buffers, and how a layer shows itself."""
    torch.manual_seed(0)
    info = database[f"nn.{name.removeprefix('Lazy')}"]
    samples = info.module_inputs_func(info, device=device, dtype=torch.float64, requires_grad=False, training=True)
    assert len(samples) >= 7

    def called(layer: Any, x: Tensor, grad: Tensor) -> list[Tensor]:
        results = []
        for training in (True, False):
            layer.train(training)
            given = x.detach().clone().requires_grad_()
            y = layer(given)
            results += [y.detach(), *torch.autograd.grad(y, given, grad)]
        return [*results, *layer.buffers()]

    lazy = name.startswith("Lazy")
    for sample in samples[:2] if lazy else samples:
        x, arguments = sample.forward_input.args[0], sample.constructor_input.args
        if lazy:
            arguments = arguments[1:]
        layers = [
            getattr(of, name)(*arguments, **sample.constructor_input.kwargs).to(device, dtype)
            for of, dtype in ((nn, torch.float32), (torch.nn, torch.float64), (torch.nn, torch.float32))
        ]
        grad = torch.randn_like(x)
        results = []
        for layer, backend in zip(layers, (kernel_backend, "auto", "auto"), strict=True):
            dtype = torch.float64 if layer is layers[1] else torch.float32
            with use_backend(backend):
                results.append(called(layer, x.to(dtype), grad.to(dtype)))
        assert repr(layers[0]) == repr(layers[1])
        assert_rounds_as_pytorch(*results, a_channel(x), f"{layers[0]} of {list(x.shape)}")


@pytest.mark.parametrize("rank", (1, 2, 3))
def test_wrong_layers(database: Any, kernel_backend: str, device: str, rank: int) -> None:
    info = database[f"nn.BatchNorm{rank}d"]
    wrong = info.module_error_inputs_func(info, device=device, dtype=torch.float32, requires_grad=False, training=True)
    assert len(wrong) >= 2
    for each in wrong:
        made, called = each.module_error_input.constructor_input, each.module_error_input.forward_input
        layer = getattr(nn, f"BatchNorm{rank}d")(*made.args, **made.kwargs).to(device)
        with use_backend(kernel_backend), pytest.raises(each.error_type, match=each.error_regex):
            layer(*called.args)
