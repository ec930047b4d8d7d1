"""torch.utils.flop_counter counts what PyTorch's own layers count."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import cnnkernels
from cnnkernels import functional, nn, use_backend
from cnnkernels.ops import flops


def counted(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def both_ways(model: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Of the forward and of every gradient."""
    return counted(lambda: model(x).sum().backward())


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, (3, 5), padding="same"),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8),
        torch.nn.Conv2d(16, 12, 1),
        torch.nn.Conv2d(12, 8, 3, padding=1, padding_mode="reflect", groups=4, dilation=2),
        torch.nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2),
        torch.nn.Flatten(2),
        torch.nn.Conv1d(4, 4, 5, stride=3, padding_mode="circular", padding=2),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(3),
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_a_replaced_model_counts_as_the_original(recorded, frozen: bool) -> None:
    model, x = network(), torch.ones(2, 3, 20, 16, requires_grad=not frozen)
    model(x)  # makes the lazy layer
    replaced = cnnkernels.replace_layers(model).model
    with use_backend("cuda"):
        assert both_ways(replaced, x) == both_ways(model, x) > 0
        by_layer = FlopCounterMode(display=False)
        with by_layer, torch.no_grad():
            replaced(x)
    assert {name for name, counts in by_layer.get_flop_counts().items() if sum(counts.values())} == {
        "Global", "Sequential", *(f"Sequential.{i}" for i in (0, 3, 4, 5, 6, 8, 10)),
    }  # fmt: skip
    assert recorded  # by the operators of the project


def pair(save: bool, first: str | None = "relu") -> nn.DepthwiseSeparableConv2d:
    return nn.DepthwiseSeparableConv2d(
        4, 6, 3, 2, 1, channel_multiplier=2, depthwise_activation=first, save_intermediate=save
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("frozen", [(), ("pointwise",), ("depthwise", "x")], ids=str)
def test_the_pair_counts_as_two_convolutions(
    device: str, monkeypatch: pytest.MonkeyPatch, fused: bool, frozen: tuple[str, ...]
) -> None:
    """And, where the intermediate is not saved, as its depthwise convolution once more."""
    kernels = cnnkernels.backends.kernels("cuda", device)
    monkeypatch.setattr(kernels, "depthwise_separable_conv_fuses_backward", lambda *_: fused, raising=False)
    x = torch.ones(2, 4, 9, 8, device=device, requires_grad="x" not in frozen)
    for save in (True, False):
        layer = pair(save).to(device)
        for name in frozen:
            if name != "x":
                getattr(layer, name).requires_grad_(False)
        apart = torch.nn.Sequential(layer.depthwise, torch.nn.ReLU(), layer.pointwise)
        with use_backend("cuda"):
            again = 0 if save else counted(lambda layer=layer: layer.depthwise(x))
            assert both_ways(layer, x) == both_ways(apart, x) + again


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_an_epilogue_counts_as_its_convolution(device: str, activation: str) -> None:
    """And, where the activation's derivative needs it, as that once more."""
    x = torch.ones(2, 4, 9, 8, device=device, requires_grad=True)
    layer = nn.Conv2dAct(4, 6, 3, activation=activation, affine=True, device=device)
    original = torch.nn.Conv2d(4, 6, 3, device=device)
    again = counted(lambda: original(x)) if activation == "silu" else 0
    with use_backend("cuda"):
        assert both_ways(layer, x) == both_ways(original, x) + again


def test_integers_count_as_floats(device: str) -> None:
    x, w = torch.ones(2, 4, 9, 8, dtype=torch.int8, device=device), torch.ones(6, 2, 3, 3, dtype=torch.int8)
    w = w.to(device)
    with use_backend("reference"):
        expected = counted(lambda: functional.conv2d(x.float(), w.float(), None, 2, 1, groups=2))
        assert counted(lambda: functional.int8_conv2d(x, w, None, 2, 1, groups=2)) == expected > 0
        a, b = torch.ones(5, 7, dtype=torch.int8, device=device), torch.ones(3, 7, dtype=torch.int8, device=device)
        scale = torch.ones(3, device=device)
        assert counted(lambda: functional.int_mm(a, b.t())) == 2 * 5 * 7 * 3
        assert counted(lambda: functional.int8_linear(a, b, 1.0, scale)) == 2 * 5 * 7 * 3
        assert counted(lambda: functional.int8_weight_only_linear(a.float(), b, scale)) == 2 * 5 * 7 * 3


def test_every_operator_that_multiplies_is_counted() -> None:
    """The others move numbers, as pooling does, or add and scale them: PyTorch counts none of these."""
    operators = {name.removeprefix("cnnkernels::") for name in torch._C._dispatch_get_all_op_names()
                 if name.startswith("cnnkernels::")}  # fmt: skip
    kinds = ("conv", "gemm", "linear")
    multiplying = {name for name in operators if any(kind in name for kind in kinds) and not name.endswith("_bias")}
    assert len(multiplying) == 11
    assert all(getattr(torch.ops.cnnkernels, name) in flop_registry for name in multiplying)


@pytest.mark.parametrize("imported_before", [False, True])
def test_the_order_of_imports_does_not_matter(monkeypatch: pytest.MonkeyPatch, imported_before: bool) -> None:
    name, before = "torch.utils.flop_counter", list(sys.meta_path)
    monkeypatch.setattr(torch.utils, "flop_counter", torch.utils.flop_counter)  # to be put back
    monkeypatch.delitem(sys.modules, name)
    if imported_before:
        importlib.import_module(name)
    flops.register_when_imported()
    fresh = importlib.import_module(name)
    assert fresh.flop_registry is not flop_registry
    assert {str(op) for op in fresh.flop_registry} == {str(op) for op in flop_registry}
    assert sys.meta_path == before
