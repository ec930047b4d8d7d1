"""replace_layers on small models of the usual shapes, and on everything a layer may carry."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import cnnkernels
from cnnkernels import replace_layers

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def full_precision():
    """fp32 products as they are, so that PyTorch's own tolerances fit."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


class Block(nn.Module):
    """A residual block with a projection."""

    def __init__(self, c: int, k: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, k, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(k)
        self.conv2 = nn.Conv2d(k, k, 3, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(k)
        self.shortcut = nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, Block(4, 4, 1), Block(4, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


class UNet(nn.Module):
    """Down by max-pooling, up by unpooling at the same places, with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "enter": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
                "bottom": nn.Conv2d(4, 4, 3, padding="same", dilation=2),
            }
        )
        self.down = nn.MaxPool2d(2, return_indices=True)
        self.up = nn.MaxUnpool2d(2)
        self.last = nn.ModuleList([nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 3, 1)])

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.layers["enter"](x))
        y, places = self.down(skip)
        y = self.up(F.relu(self.layers["bottom"](y)), places)
        y = torch.cat([y, skip], 1)
        for layer in self.last:
            y = layer(y)
        return y


MODELS = {"resnet": (resnet, 16, 0), "unet": (UNet, 6, 0)}  # how many are swapped, kept


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    y = model(x)
    return y, list(torch.autograd.grad(y.square().sum(), list(model.parameters())))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
@pytest.mark.parametrize("backend", ["reference", "cuda", "triton"])
def test_models_give_the_same_results_and_gradients(device: str, name: str, inplace: bool, backend: str) -> None:
    make, swapped, kept = MODELS[name]
    torch.manual_seed(0)
    model = make().double().to(device)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, device=device)
    expected, gradients = step(model, x)
    keys, modules = list(model.state_dict()), [type(m) for m in model.modules()]
    report = replace_layers(model, backend=backend, inplace=inplace)
    assert (len(report.swapped), len(report.kept)) == (swapped, kept)
    assert (report.model is model) == inplace
    if not inplace:
        assert [type(m) for m in model.modules()] == modules
    assert list(report.model.state_dict()) == keys
    assert all(p is q for p, q in zip(model.parameters(), report.model.parameters(), strict=True))
    assert all(p is q for p, q in zip(model.buffers(), report.model.buffers(), strict=True))
    ours = [m for m in report.model.modules() if type(m).__module__.startswith("cnnkernels.nn.")]
    assert len(ours) == swapped and all(m.backend == backend for m in ours)
    y, ours_gradients = step(report.model, x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours_gradients, gradients, rtol=1e-9, atol=1e-9)
    again = replace_layers(report.model, inplace=True)
    assert not again.swapped and len(again.kept) == swapped + kept


def test_the_model_may_be_a_layer() -> None:
    layer = nn.Conv2d(2, 3, 3)
    report = replace_layers(layer)
    assert type(report.model) is cnnkernels.nn.Conv2d and type(layer) is nn.Conv2d
    assert str(report) == ("swapped 1, kept 0\n  swapped (the model): Conv2d(2, 3, kernel_size=(3, 3), stride=(1, 1))")


def test_a_layer_under_two_names_stays_one() -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1)
    report = replace_layers(nn.ModuleDict({"a": layer, "b": nn.Sequential(layer, nn.ReLU(), layer)}))
    assert [each.names for each in report.swapped] == [("a", "b.0", "b.2")]
    assert report.model["a"] is report.model["b"][0] is report.model["b"][2]


class OwnForward(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class OwnArithmetic(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean(), bias)


class OwnConstructor(nn.Conv2d):
    """Computes as torch.nn.Conv2d does."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    @property
    def channels(self) -> int:
        return self.in_channels


def test_what_is_kept_and_why() -> None:
    patched = nn.MaxPool2d(2)
    patched.forward = lambda x: x  # type: ignore[method-assign]
    quantized = torch.ao.nn.quantized.Conv2d(2, 2, 3)
    model = nn.ModuleDict(
        {
            "own forward": OwnForward(2, 2, 3),
            "own arithmetic": OwnArithmetic(2, 2, 3),
            "patched": patched,
            "complex": nn.Conv2d(2, 2, 3, dtype=torch.complex64),
            "quantized": quantized,
            "scripted": torch.jit.script(nn.MaxPool2d(2)),
            "volume": nn.Conv3d(2, 2, 3),
            "average": nn.AvgPool3d(2),
            "norm": nn.GroupNorm(1, 2),
        }
    )
    types = [type(m) for m in model.modules()]
    report = replace_layers(model, inplace=True)
    assert [type(m) for m in model.modules()] == types and not report.swapped
    assert {layer.names[0]: layer.reason for layer in report.kept} == {
        "own forward": "OwnForward has its own forward()",
        "own arithmetic": "OwnArithmetic has its own _conv_forward()",
        "patched": "MaxPool2d has its own forward()",
        "complex": "its weight is torch.complex64, the kernels take torch.float64, torch.float32, torch.float16, "
        "torch.bfloat16",
        "quantized": "quantized",
        "scripted": "compiled by TorchScript",
        "volume": "cnnkernels.nn has no counterpart",
        "average": "cnnkernels.nn has no counterpart",
    }


def test_a_subclass_that_inherits_its_arithmetic() -> None:
    layer = OwnConstructor(2)
    swapped = replace_layers(layer).model
    assert isinstance(swapped, OwnConstructor) and isinstance(swapped, cnnkernels.nn.Conv2d)
    assert type(swapped).__name__ == "OwnConstructor" and swapped.channels == 2
    x = torch.randn(1, 2, 5, 5)
    for clone in (swapped, copy.deepcopy(swapped), pickle.loads(pickle.dumps(swapped))):
        assert type(clone) is type(swapped)
        torch.testing.assert_close(clone(x), layer(x))


def test_hooks_keep_firing_and_can_be_removed() -> None:
    seen: list[str] = []
    layer = nn.Conv2d(2, 2, 3)
    handles = [
        layer.register_forward_pre_hook(lambda module, args: seen.append("pre")),
        layer.register_forward_hook(lambda module, args, out: seen.append(type(module).__module__)),
        layer.register_full_backward_hook(lambda module, grad_input, grad_output: seen.append("backward")),
        layer.weight.register_hook(lambda grad: seen.append("weight")),
    ]
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    replace_layers(layer).model(x).sum().backward()
    assert sorted(seen) == ["backward", "cnnkernels.nn.conv", "pre", "weight"]
    seen.clear()
    replace_layers(layer, inplace=True)
    for handle in handles:
        handle.remove()
    layer(x).sum().backward()
    assert seen == []


class Counting(nn.Module):
    """A hook that is a method: of the copy, where the model was copied."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.count = 0
        self.conv.register_forward_hook(self.add)

    def add(self, *_: object) -> None:
        self.count += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_a_hook_bound_to_the_model_is_bound_to_its_copy() -> None:
    model = Counting()
    swapped = replace_layers(model).model
    swapped(torch.ones(1, 1, 1, 1))
    assert (model.count, swapped.count) == (0, 1)


@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    ],
    ids=["weight_norm", "spectral_norm", "old-weight_norm", "old-spectral_norm", "prune"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_reparametrized_weights(wrap) -> None:
    torch.manual_seed(0)
    layer = wrap(nn.Conv2d(2, 4, 3)).eval()
    x = torch.randn(1, 2, 6, 6)
    expected = layer(x)  # leaves a computed tensor behind as the attribute `weight`
    swapped = replace_layers(layer).model
    assert isinstance(swapped, cnnkernels.nn.Conv2d) and not isinstance(layer, cnnkernels.nn.Conv2d)
    assert list(swapped.state_dict()) == list(layer.state_dict())
    torch.testing.assert_close(swapped(x), expected)
    swapped(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    torch.testing.assert_close(replace_layers(swapped).model(x), expected)


def test_removing_a_parametrization_leaves_our_layer() -> None:
    layer = replace_layers(parametrizations.weight_norm(nn.Conv2d(2, 4, 3)), backend="reference").model
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is cnnkernels.nn.Conv2d and layer.backend == "reference"


def test_mode_and_frozen_parameters_are_kept() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    model[0].requires_grad_(False)
    model[1].eval()
    swapped = replace_layers(model).model
    assert [p.requires_grad for p in swapped.parameters()] == [False, False, True, True]
    assert [m.training for m in swapped.modules()] == [True, True, False]


def test_lazy_layers_become_ours() -> None:
    model = replace_layers(nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())).model
    model(torch.ones(1, 2, 5, 5))
    assert type(model[0]) is cnnkernels.nn.Conv2d and model[0].in_channels == 2


def test_an_optimizer_made_before_trains_the_copy() -> None:
    model = nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    swapped = replace_layers(model).model
    before = swapped.weight.clone()
    swapped(torch.ones(1, 1, 1, 1)).sum().backward()
    optimizer.step()
    assert torch.equal(swapped.weight, before - 1) and swapped.weight is model.weight


@pytest.mark.parametrize("backend", [None, "cuda", "reference"])
def test_the_swapped_model_compiles_whole(device: str, backend: str | None) -> None:
    torch.manual_seed(0)
    model = UNet().double().to(device)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, device=device)
    expected = step(model, x)
    swapped = replace_layers(model, backend=backend).model
    y, gradients = step(torch.compile(swapped, backend="aot_eager", fullgraph=True), x)
    torch.testing.assert_close((y, gradients), expected, rtol=1e-9, atol=1e-9)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"argument 'model' must be a torch.nn.Module, not list"):
        replace_layers([nn.Conv2d(1, 1, 1)])  # type: ignore[arg-type]
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match=r"backend must be one of .*'cudnn'"):
        replace_layers(model, backend="cudnn", inplace=True)
    assert type(model[0]) is nn.Conv2d
