"""`patch_functional` and `replace_layers(functional=True)`: whose code the calls of torch.nn.functional reach."""

import copy
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cnnkernels
from cnnkernels.backends import recording
from cnnkernels.convert import functional_calls


def integers(*shape: int) -> Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 7 - 3.0).reshape(shape)


IMAGE, ROW = integers(2, 4, 6, 6), integers(2, 4, 6)
FILTERS, TAPS = integers(4, 4, 3, 3), integers(4, 4, 3)
# Each namesake as people call it.
CALLS: dict[str, Callable[[], Any]] = {
    "conv1d": lambda: F.conv1d(ROW, TAPS, padding=1),
    "conv2d": lambda: F.conv2d(IMAGE, FILTERS, None, 2, padding=1),
    "conv_transpose1d": lambda: F.conv_transpose1d(ROW, TAPS, None, 2, 1, 1),
    "conv_transpose2d": lambda: F.conv_transpose2d(IMAGE, FILTERS, stride=2),
    "max_pool1d": lambda: F.max_pool1d(ROW, 2),
    "max_pool1d_with_indices": lambda: F.max_pool1d(ROW, 2, return_indices=True),
    "max_pool2d": lambda: F.max_pool2d(IMAGE, 2, 1),
    "max_pool2d_with_indices": lambda: F.max_pool2d_with_indices(IMAGE, 2),
    "max_unpool2d": lambda: F.max_unpool2d(IMAGE, torch.arange(36).reshape(6, 6).expand(2, 4, 6, 6) * 4, 2),
    "avg_pool1d": lambda: F.avg_pool1d(ROW, 2, count_include_pad=False),
    "avg_pool2d": lambda: F.avg_pool2d(IMAGE, 2),
    "adaptive_avg_pool1d": lambda: F.adaptive_avg_pool1d(ROW, 2),
    "adaptive_avg_pool2d": lambda: F.adaptive_avg_pool2d(IMAGE, (2, None)),
    "batch_norm": lambda: F.batch_norm(IMAGE, torch.zeros(4), torch.ones(4), training=False, eps=0.0),
}


def test_every_namesake_is_called_here() -> None:
    assert {name for name in cnnkernels.functional.__all__ if hasattr(F, name)} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_served_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []
    for theirs, ours in list(functional_calls._SERVED_BY.items()):

        def spy(*arguments: Any, ours: Callable[..., Any] = ours, theirs: Any = theirs, **named: Any) -> Any:
            served.append(theirs.__name__)
            return ours(*arguments, **named)

        monkeypatch.setitem(functional_calls._SERVED_BY, theirs, spy)
    expected = CALLS[name]()
    assert served == []
    with cnnkernels.patch_functional(), cnnkernels.patch_functional():
        output = CALLS[name]()
    assert served == [name]
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    CALLS[name]()
    assert served == [name]


class Standardized(nn.Conv2d):
    """Prepares its weights, as standardized ones are, in whole numbers."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.sum((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class SamePadding(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class ByConvForward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * 2, self.bias)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Standardized(4, 4, 3), SamePadding(4, 4, 2), ByConvForward(4, 4, 1), nn.Conv2d(4, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(F.max_pool2d(self.layers(x), 2), 1).flatten(1)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def calls_of(function: Callable[[], Any]) -> list[str]:
    """The project's operators that were called."""
    with recording() as recorder:
        function()
    return [call.operator for call in recorder.calls]


def test_layers_with_code_of_their_own(network: Network) -> None:
    replaced = cnnkernels.replace_layers(network, functional=True)
    assert [line.names[0] for line in replaced.served] == ["layers.0", "layers.1", "layers.2"]
    assert [line.names[0] for line in replaced.swapped] == ["layers.3"]
    assert replaced.kept == ()
    assert "served 3" in str(replaced)
    assert "layers.1: SamePadding(4, 4, kernel_size=(2, 2), stride=(1, 1)): SamePadding has its own forward()" in str(
        replaced
    )
    assert calls_of(lambda: replaced.model(IMAGE)) == ["conv2d"] * 4 + ["max_pool2d", "adaptive_avg_pool2d"]
    assert calls_of(lambda: network(IMAGE)) == []


def test_it_computes_what_the_model_does(network: Network, kernel_backend: str) -> None:
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(integers(*parameter.shape))
    served = cnnkernels.replace_layers(network, kernel_backend, functional=True).model
    results = []
    for model in network, served:
        output = model(IMAGE.double())
        results.append([output, *torch.autograd.grad(output.sum(), list(model.parameters()))])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_a_backend_is_asked_for() -> None:
    served = cnnkernels.replace_layers(Standardized(4, 4, 3), "cuda", functional=True).model.to(torch.complex64)
    with pytest.raises(NotImplementedError, match="conv2d"):  # no kernel takes it, and PyTorch's own would
        served(IMAGE.to(torch.complex64))


def test_the_same_parameters_and_names(network: Network) -> None:
    served = cnnkernels.replace_layers(network, functional=True).model
    assert list(served.state_dict()) == list(network.state_dict())
    assert all(a is b for a, b in zip(served.parameters(), network.parameters(), strict=True))
    assert isinstance(served, Network)
    assert type(served).__qualname__ == "Network"
    assert type(network) is Network


def test_a_second_call_finds_nothing(network: Network) -> None:
    served = cnnkernels.replace_layers(network, functional=True).model
    again = cnnkernels.replace_layers(served, functional=True)
    assert (again.swapped, again.served) == ((), ())
    assert [type(a) for a in again.model.modules()] == [type(b) for b in served.modules()]


def test_copies_and_pickles_are_served(network: Network) -> None:
    served = cnnkernels.replace_layers(network, functional=True).model
    saved = io.BytesIO()
    torch.save(served, saved)
    saved.seek(0)
    expected = served(IMAGE)
    for other in copy.deepcopy(served), pickle.loads(pickle.dumps(served)), torch.load(saved, weights_only=False):
        assert calls_of(lambda model=other: model(IMAGE)).count("conv2d") == 4
        assert torch.equal(other(IMAGE), expected)


def test_compiled_and_exported(network: Network) -> None:
    served = cnnkernels.replace_layers(network.eval(), "cuda", functional=True).model
    expected = served(IMAGE)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(served, backend="aot_eager", fullgraph=True)(IMAGE), expected)
    torch._dynamo.reset()
    exported = torch.export.export(served, (IMAGE,))
    assert [str(node.target) for node in exported.graph.nodes].count("cnnkernels.conv_forward.default") == 4
    assert torch.equal(exported.module()(IMAGE), expected)


def test_a_scope_is_the_threads() -> None:
    calls: dict[str, list[str]] = {}

    def other() -> None:
        calls["outside"] = calls_of(CALLS["conv2d"])
        with cnnkernels.patch_functional():
            calls["inside"] = calls_of(CALLS["conv2d"])

    with cnnkernels.patch_functional():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert calls_of(CALLS["conv2d"]) == ["conv2d"]
    assert calls == {"outside": [], "inside": ["conv2d"]}


def test_scopes_end() -> None:
    @cnnkernels.patch_functional()
    def decorated() -> None:
        CALLS["conv2d"]()

    scope = cnnkernels.patch_functional()
    for _ in range(2):
        with pytest.raises(KeyError), scope, cnnkernels.patch_functional():
            raise KeyError
        assert calls_of(CALLS["conv2d"]) == []
        assert calls_of(decorated) == ["conv2d"]
        assert calls_of(CALLS["conv2d"]) == []
    with scope:
        decorated()
        assert calls_of(CALLS["conv2d"]) == ["conv2d"]


def test_errors_are_pytorchs() -> None:
    with pytest.raises(RuntimeError, match="Given groups=1"), cnnkernels.patch_functional("cuda"):
        F.conv2d(IMAGE, FILTERS[:, :3])
    with pytest.raises(ValueError, match="hip"):
        cnnkernels.patch_functional("hip")
