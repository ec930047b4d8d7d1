"""cnnkernels.nn beside torch.nn: the same layer in every respect but who computes it."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch

import cnnkernels
from cnnkernels import functional, nn

LAYERS = {
    "Conv2d": [
        ((3, 8, 3), {}),
        ((4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2, "bias": False}),
        ((4, 4, 3), {"padding": "same", "padding_mode": "reflect"}),
        ((4, 8, 3), {"padding": "valid", "dtype": torch.float64}),
    ],
    "Conv1d": [((3, 8, 3), {}), ((4, 6, 5, 2), {"padding": 2, "padding_mode": "circular", "groups": 2})],
    "LazyConv1d": [((8, 3), {"padding": "same"})],
    "ConvTranspose1d": [((3, 8, 3), {}), ((4, 6, 3, 2, 1, 1, 2), {"bias": False})],
    "ConvTranspose2d": [((3, 8, 3), {}), ((4, 6, (3, 2), (2, 1), (1, 0), (1, 0), 2), {"dtype": torch.float64})],
    "LazyConvTranspose1d": [((8, 3), {"stride": 2})],
    "LazyConvTranspose2d": [((8, 3), {"stride": 2, "bias": False})],
    "LazyConv2d": [((8, 3), {"padding": 1}), ((8, (1, 3)), {"bias": False})],
    "MaxPool2d": [((2,), {}), (((3, 2),), {"stride": 2, "padding": 1, "dilation": 1, "ceil_mode": True})],
    "MaxUnpool2d": [((2,), {}), (((3, 2), 2, 1), {})],
    "MaxPool1d": [((2,), {}), ((3, 2, 1), {"dilation": 1, "ceil_mode": True, "return_indices": True})],
    "AvgPool1d": [((2,), {}), ((3, 2, 1), {"ceil_mode": True, "count_include_pad": False})],
    "AdaptiveAvgPool1d": [((1,), {}), ((5,), {})],
    "AvgPool2d": [((2,), {}), (((3, 2), 2, 1), {"ceil_mode": True, "count_include_pad": False, "divisor_override": 5})],
    "AdaptiveAvgPool2d": [((1,), {}), (((None, 3),), {})],
}
arguments = pytest.mark.parametrize(
    ("name", "args", "kwargs"), [(name, *each) for name, calls in LAYERS.items() for each in calls]
)


@pytest.fixture(autouse=True)
def full_precision():
    """fp32 products as they are, so that PyTorch's own tolerances fit."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions of cnnkernels.functional that were called, in order."""
    seen: list[str] = []
    for name in functional.__all__:
        function = getattr(functional, name)

        def record(*args: object, _name: str = name, _function=function, **kwargs: object) -> object:
            seen.append(f"{_name} on {cnnkernels.backends.requested()}")
            return _function(*args, **kwargs)

        monkeypatch.setattr(functional, name, record)
    return seen


def twins(name: str, *args: object, **kwargs: object) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Our layer and torch.nn's, from the same seed."""
    torch.manual_seed(0)
    ours = getattr(nn, name)(*args, **kwargs)
    torch.manual_seed(0)
    return ours, getattr(torch.nn, name)(*args, **kwargs)


@arguments
def test_same_constructor_repr_and_state_dict(name: str, args: tuple, kwargs: dict) -> None:
    ours, theirs = twins(name, *args, **kwargs)
    assert isinstance(ours, getattr(torch.nn, name))
    assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    if not name.startswith("Lazy"):
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, q) and p.dtype == q.dtype


@arguments
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_and_pickles(name: str, args: tuple, kwargs: dict, clone) -> None:
    layer = getattr(nn, name)(*args, **kwargs).eval()
    layer.backend = "reference"
    other = clone(layer)
    assert type(other) is type(layer) and repr(other) == repr(layer)
    assert other.backend == "reference" and not other.training
    if not name.startswith("Lazy"):
        for p, q in zip(layer.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q) and p is not q


def test_torch_save_and_load() -> None:
    layer = nn.Conv2d(2, 3, 3)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False).weight, layer.weight)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
def test_padding_modes(calls: list[str], device: str, mode: str, padding: int | tuple | str, batched: bool) -> None:
    ours, theirs = twins("Conv2d", 2, 3, (3, 4), padding=padding, padding_mode=mode, dtype=torch.float64, device=device)
    x = torch.randn(2, 2, 6, 7, dtype=torch.float64, device=device)[slice(None) if batched else 0]
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(a), theirs(b)
    assert calls == ["conv2d on auto"]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    dy = torch.randn_like(expected)
    y.backward(dy)
    expected.backward(dy)
    for p, q in [(a, b), *zip(ours.parameters(), theirs.parameters(), strict=True)]:
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-12)


def test_pool_then_unpool(calls: list[str], device: str) -> None:
    x = torch.randn(2, 3, 6, 8, device=device)
    pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    expected, expected_indices = torch.nn.MaxPool2d(2, return_indices=True)(x)
    y, indices = pool(x)
    assert torch.equal(y, expected) and torch.equal(indices, expected_indices)
    assert torch.equal(unpool(y, indices), torch.nn.MaxUnpool2d(2)(expected, expected_indices))
    assert torch.equal(unpool(y, indices, output_size=[2, 3, 6, 8]), unpool(y, indices))
    assert torch.equal(nn.MaxPool2d(2)(x), expected)
    assert calls == ["max_pool2d on auto", *["max_unpool2d on auto"] * 3, "max_pool2d on auto"]


def test_lazy_conv_becomes_ours_at_its_first_input(calls: list[str], device: str) -> None:
    ours, theirs = twins("LazyConv2d", 8, 3, padding=1, device=device)
    x = torch.randn(2, 5, 6, 6, device=device)
    torch.manual_seed(1)
    y = ours(x)
    torch.manual_seed(1)
    expected = theirs(x)
    assert type(ours) is nn.Conv2d and repr(ours) == repr(theirs)
    assert calls == ["conv2d on auto"]
    torch.testing.assert_close(y, expected)
    ours(x)
    assert calls == ["conv2d on auto"] * 2


def test_pinned_backend(calls: list[str], device: str) -> None:
    x = torch.randn(1, 2, 4, 4, device=device)
    conv, pool = nn.Conv2d(2, 2, 3, padding=1, device=device), nn.MaxPool2d(2)
    conv.backend = "reference"
    with cnnkernels.use_backend("auto"):
        pool(conv(x))
    assert calls == ["conv2d on reference", "max_pool2d on auto"]
    assert repr(conv) == "Conv2d(2, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), backend=reference)"
    conv.backend = "cudnn"
    with pytest.raises(ValueError, match="cudnn"):
        conv(x)
