"""PyTorch's own samples of its operators and layers (its OpInfo and ModuleInfo databases), and its wrong inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import functional, nn, use_backend
from cnnkernels.operators import OPERATORS
from tests.helpers.models.pytorch_samples import pytorch_samples

pytestmark = pytest.mark.long

FUNCTIONS = [name for each in OPERATORS.values() if each.word == "conv" for name in each.functions if name != "conv2d"]
LAYERS = ("Conv1d", "ConvTranspose1d", "ConvTranspose2d", "LazyConv1d", "LazyConvTranspose1d", "LazyConvTranspose2d")


@pytest.fixture(scope="module")
def database() -> Iterator[Any]:
    with pytorch_samples() as samples:
        yield samples


def integers(value: Any) -> Any:
    """Of a tensor its sizes with small integers in it, so that any order of summation gives the same bits."""
    return torch.randint(-3, 4, value.shape).to(value) if isinstance(value, Tensor) else value


def compared(ours: Any, theirs: Any, tensors: list[Tensor]) -> None:
    """A function's result and its gradients by all of the tensors."""
    mine, others = ([t.detach().clone().requires_grad_() for t in tensors] for _ in range(2))
    y, expected = ours(mine), theirs(others)
    assert torch.equal(y, expected)
    grad = integers(expected)
    both = torch.autograd.grad(y, mine, grad), torch.autograd.grad(expected, others, grad)
    for result, wanted in zip(*both, strict=True):
        assert torch.equal(result, wanted) and result.dtype is wanted.dtype


@pytest.mark.parametrize("name", FUNCTIONS)
def test_samples(database: Any, kernel_backend: str, device: str, name: str) -> None:
    torch.manual_seed(0)
    samples = list(database[name].sample_inputs(device, torch.float64, requires_grad=False))
    assert len(samples) >= 10
    for sample in samples:
        given = [integers(value) for value in (sample.input, *sample.args)]
        places = [i for i, value in enumerate(given) if isinstance(value, Tensor)]

        def called(function: Any, tensors: list[Tensor], given=given, places=places, sample=sample) -> Tensor:
            arguments = list(given)
            for place, tensor in zip(places, tensors, strict=True):
                arguments[place] = tensor
            return function(*arguments, **sample.kwargs)

        with use_backend(kernel_backend):
            compared(
                lambda tensors, called=called: called(getattr(functional, name), tensors),
                lambda tensors, called=called: called(database[name].op, tensors),
                [given[place] for place in places],
            )


def test_wrong_samples(database: Any, kernel_backend: str, device: str) -> None:
    """Transposed convolutions have none there."""
    wrong = list(database["conv1d"].error_inputs(device))
    assert len(wrong) >= 10
    for each in wrong:
        sample = each.sample_input
        with pytest.raises(each.error_type):
            database["conv1d"].op(sample.input, *sample.args, **sample.kwargs)
        with use_backend(kernel_backend), pytest.raises(each.error_type):
            functional.conv1d(sample.input, *sample.args, **sample.kwargs)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(database: Any, kernel_backend: str, device: str, name: str) -> None:
    info = database[f"nn.{name}"]
    samples = info.module_inputs_func(info, device=device, dtype=torch.float64, requires_grad=False, training=True)
    assert len(samples) >= 2
    for sample in samples:
        made, called = sample.constructor_input, sample.forward_input
        ours, theirs = layers = [
            getattr(of, name)(*made.args, **made.kwargs).to(device, torch.float64) for of in (nn, torch.nn)
        ]
        x = integers(called.args[0])
        with torch.no_grad():
            for layer in layers:
                layer(x)  # a lazy one becomes what it is
        with torch.no_grad():
            for mine, other in zip(*(layer.parameters() for layer in layers), strict=True):
                other.copy_(integers(mine))
                mine.copy_(other)
        assert repr(ours) == repr(theirs)
        with use_backend(kernel_backend):
            compared(lambda x, layer=ours: layer(*x), lambda x, layer=theirs: layer(*x), [x])
