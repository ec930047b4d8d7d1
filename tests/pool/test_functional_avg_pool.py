"""functional.avg_pool2d and adaptive_avg_pool2d against torch.nn.functional's: every way to call them, every layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cnnkernels
from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers
from helpers.memory_orders.views import SHAPES, views

CHANNELS_LAST = torch.channels_last
# "of PyTorch": torch.testing's samples of these operators.
AVERAGES: dict[str, tuple[tuple[int, ...], str, tuple[Any, ...], dict[str, Any]]] = {
    "of PyTorch 1": ((1, 3, 9, 9), "avg_pool2d", (3, 1, 1, True, False, 2), {}),
    "of PyTorch 2": ((1, 3, 9, 9), "avg_pool2d", ((4, 4), (2, 3), 1, True, False, 2), {}),
    "of PyTorch 3": ((1, 3, 9, 9), "avg_pool2d", ((6, 6), (3, 3), (2, 3), True, True, 2), {}),
    "of PyTorch 4": ((2, 3, 9, 9), "avg_pool2d", ((3, 3), (1, 1), (1,), True, False, 2), {}),
    "of PyTorch 5": ((1, 1, 4, 4), "avg_pool2d", ((2, 2), (), (0,), False, True, -2), {}),
    "of PyTorch 6": ((1, 2, 6, 6), "avg_pool2d", ((4, 4), (2, 2), (2,), True, True, None), {}),
    "of PyTorch 7": ((1, 3, 9, 9), "avg_pool2d", (3, 3), {}),
    "by name": ((2, 3, 5, 6), "avg_pool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}),
    "ceil_mode drops a window that starts in the padding": ((1, 1, 3, 3), "avg_pool2d", (2, 3, 1, True), {}),
    "unbatched": ((3, 5, 6), "avg_pool2d", (2,), {}),
    "window of the input": ((2, 3, 5, 6), "avg_pool2d", ((5, 6),), {}),
    "no images": ((0, 3, 5, 6), "avg_pool2d", (2,), {}),
    "bins of PyTorch 1": ((1, 8, 8, 8), "adaptive_avg_pool2d", ((5, 7),), {}),
    "bins of PyTorch 2": ((8, 8, 8), "adaptive_avg_pool2d", ((5, 7),), {}),
    "bins of PyTorch 3": ((2, 8, 8, 8), "adaptive_avg_pool2d", ((None, 7),), {}),
    "bins of PyTorch 4": ((8, 8, 8), "adaptive_avg_pool2d", ((None, 7),), {}),
    "bins of PyTorch 5": ((1, 8, 4, 3), "adaptive_avg_pool2d", ((5, None),), {}),
    "bins of PyTorch 6": ((8, 4, 3), "adaptive_avg_pool2d", ((5, None),), {}),
    "bins of PyTorch 7": ((1, 8, 4, 3), "adaptive_avg_pool2d", ((None, None),), {}),
    "bins of PyTorch 8": ((8, 4, 3), "adaptive_avg_pool2d", ((None, None),), {}),
    "bins of PyTorch 9": ((1, 8, 4, 3), "adaptive_avg_pool2d", (5,), {}),
    "bins of PyTorch 10": ((8, 4, 3), "adaptive_avg_pool2d", (5,), {}),
    "bins by name": ((2, 3, 5, 6), "adaptive_avg_pool2d", (), {"output_size": 2}),
    "one pixel": ((2, 3, 5, 6), "adaptive_avg_pool2d", (1,), {}),
    "one pixel of five axes": ((2, 2, 3, 5, 6), "adaptive_avg_pool2d", (1,), {}),
    "one pixel of two axes": ((5, 6), "adaptive_avg_pool2d", (1,), {}),
    "bins of no images": ((0, 3, 5, 6), "adaptive_avg_pool2d", ((3, 2),), {}),
    "one pixel of no images": ((0, 3, 5, 6), "adaptive_avg_pool2d", (1,), {}),
}
averages = pytest.mark.parametrize(("shape", "name", "args", "kwargs"), AVERAGES.values(), ids=AVERAGES)
LIKE_A_POOL: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "avg_pool2d": lambda f, x: f.avg_pool2d(x, (min(2, x.shape[-2]), min(2, x.shape[-1]))),
    "adaptive_avg_pool2d": lambda f, x: f.adaptive_avg_pool2d(x, (2, 3)),
    "one pixel": lambda f, x: f.adaptive_avg_pool2d(x, 1),
}
kinds = pytest.mark.parametrize("call", LIKE_A_POOL.values(), ids=LIKE_A_POOL)


@averages
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_value_and_gradient(kernel_backend, device, shape, name, args, kwargs, memory_format) -> None:
    """In fp64, to what PyTorch's order of sums and divisions may change (it divides by rows, then by columns)."""
    x = small_integers(shape, torch.float64, 1)
    x = x.to(memory_format=memory_format) if x.dim() == 4 else x
    results = []
    for f, backend, of in ((F, "reference", x), (functional, kernel_backend, x.to(device))):
        leaf = of.detach().clone().requires_grad_()
        with use_backend(backend):
            y = getattr(f, name)(leaf, *args, **kwargs)
        probe = small_integers(tuple(y.shape), torch.float64, 2).to(of.device)
        results.append((y, torch.autograd.grad(y, leaf, probe)[0]))
        assert f is F or results[-1][1].stride() == leaf.stride()
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_integers_are_exact(kernel_backend, device, dtype: torch.dtype) -> None:
    """A sum of integers is exact in any order; both divide it in the accumulator's type and round once."""
    x = small_integers((2, 8, 9, 7), dtype, 1)
    for arguments in ((3, 2, 1), (3, 2, 1, True, False), ((2, 3), 1, 0, False, True, 7), (5, 3, 2, True)):
        with use_backend(kernel_backend):
            y = functional.avg_pool2d(x.to(device), *arguments)
        assert y.dtype is dtype and torch.equal(y.cpu(), F.avg_pool2d(x, *arguments))


@kinds
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_lies_in_memory_as_pytorchs(recorded, shape: tuple[int, ...], call) -> None:
    for name, x in views(torch.zeros(shape)):
        with use_backend("cuda"):
            ours = call(functional, x)
        assert ours.stride() == call(F, x).stride(), f"{name} {x.stride()}"
        assert recorded or not ours.numel()


@kinds
def test_unbatched_output_is_contiguous_as_pytorchs(kernel_backend, device, call) -> None:
    x = small_integers((5, 6, 3), torch.float32, 1).to(device).permute(2, 0, 1)
    with use_backend(kernel_backend):
        ours = call(functional, x)
    assert ours.stride() == call(F, x).stride()


@kinds
@pytest.mark.parametrize("kind", [name for name, _ in views(torch.zeros(2, 2, 2, 2))])
def test_values_of_any_view(kernel_backend, device, kind: str, call) -> None:
    x = dict(views(small_integers((2, 3, 4, 5), torch.float64, 1).to(device)))[kind]
    with use_backend(kernel_backend):
        torch.testing.assert_close(call(functional, x), call(F, x))


@kinds
def test_gradient_has_its_inputs_strides(recorded, call) -> None:
    for name, x in views(torch.zeros(2, 4, 5, 6)):
        leaf = x.detach().requires_grad_()
        with use_backend("cuda"):
            (grad,) = torch.autograd.grad(call(functional, leaf).sum(), leaf)
        if not any(word in name for word in ("wider", "more", "expanded")):
            assert grad.stride() == x.stride(), name


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 5, 6), (0, 2)), ((2, 0, 5, 6), (3, 2))], ids=["bins", "channels"])
def test_none_at_all(kernel_backend, device, shape, size) -> None:
    """PyTorch does not differentiate these; the gradient is zeros."""
    x = torch.ones(shape, device=device, requires_grad=True)
    with use_backend(kernel_backend):
        y = functional.adaptive_avg_pool2d(x, size)
    assert y.shape == F.adaptive_avg_pool2d(x, size).shape
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.shape == x.shape and not grad.any()


def test_errors_of_pytorch_that_backends_never_see(recorded) -> None:
    """Rows that are not there: a mean of nothing is NaN, as PyTorch's."""
    x = torch.zeros(2, 3, 0, 5)
    with use_backend("cuda"):
        assert functional.adaptive_avg_pool2d(x, 1).isnan().all()
        with pytest.raises(RuntimeError, match="non-zero size"):
            functional.adaptive_avg_pool2d(x, 2)
    assert not recorded


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            *(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool2d(3, 2, 1)),
            *(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d((3, 2)), torch.nn.Flatten()),
        )
        self.head = torch.nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_training_gives_the_same_bits_under_deterministic_algorithms(device: str) -> None:
    """PyTorch refuses to differentiate adaptive_avg_pool2d on a GPU then."""
    x = torch.randn(4, 3, 12, 11, generator=torch.Generator().manual_seed(1)).to(device)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            model = cnnkernels.replace_layers(Network().to(device), backend="cuda").model
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            for _ in range(3):
                optimizer.zero_grad()
                model(x).square().sum().backward()
                optimizer.step()
            runs.append([p.detach() for p in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert not torch.equal(runs[0][0], next(Network().parameters()).to(device))


def test_compiled_with_sizes_that_change(device: str) -> None:
    """A window of the whole image, and bins of it, are symbols: one graph serves all sizes."""
    torch.compiler.reset()
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def call(x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(functional.avg_pool2d(x, 2, 1), (None, 3))
        return pooled.sum() + functional.avg_pool2d(x, x.shape[2:]).sum()

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=keep)
    with use_backend("cuda"):
        for size in ((2, 3, 6, 8), (3, 3, 7, 9), (4, 3, 10, 5)):
            x = small_integers(size, torch.float64, 1).to(device)
            torch.testing.assert_close(compiled(x), call(x))
    assert len(graphs) == 1
