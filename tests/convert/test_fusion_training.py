"""replace_layers(fuse=True) of what is in training mode: a convolution with its activation, in value and gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import cnnkernels
from cnnkernels import use_backend
from helpers.models.fusion import fused


class Network(nn.Module):
    """Two chains that one kernel computes, and what looks like one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True)
        self.normed, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.second, self.leaky = nn.Conv2d(3, 4, 3, 2, groups=1, bias=False), nn.LeakyReLU(0.5)
        self.smooth, self.silu = nn.Conv2d(4, 4, 1), nn.SiLU()
        self.added, self.relu6 = nn.Conv2d(4, 4, 1), nn.ReLU6()
        self.dropped, self.drop, self.last = nn.Conv2d(4, 2, 1), nn.Dropout(0.5), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.normed(self.relu(self.first(x))))
        x = self.silu(self.smooth(self.leaky(self.second(x))))
        y = self.relu6(self.added(x))
        y += x  # its gradient is of what went into it, not of what came out
        return self.last(self.drop(self.dropped(y)))


def test_what_is_fused_in_training() -> None:
    model = Network().train()
    report = fused(model)
    assert [line.names[0] for line in report.fused] == ["first + relu", "second + leaky"]
    assert {line.names[0]: line.reason for line in report.unfused} == {
        "normed": "its BatchNorm2d is folded for inference alone, and it is in training mode",
        "smooth": "the derivative of its silu asks for more than the result",
        "added": "the result of its relu6, which backward reads, is changed in place",
    }
    layer = report.model.first
    assert type(layer) is cnnkernels.nn.Conv2dAct and layer.training and layer.weight is model.first.weight
    assert report.model.state_dict().keys() == model.state_dict().keys()
    assert report.model.train()(torch.randn(2, 2, 8, 8)).requires_grad and isinstance(model.first, nn.Conv2d)


def small_integers(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randint(-2, 3, parameter.shape, generator=generator).double()
    return model


def test_values_and_gradients_are_the_models(device) -> None:
    """To the bit, where nothing is rounded; in training and, as nothing was folded, in evaluation."""
    model = small_integers(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, 2, groups=4), nn.LeakyReLU(0.5),
            nn.Conv2d(4, 3, 2, bias=False), nn.ReLU6(), nn.Conv2d(3, 2, 1),
        )
    ).to(device).train()  # fmt: skip
    x = torch.randint(-2, 3, (2, 2, 9, 8), generator=torch.Generator().manual_seed(1)).double().to(device)
    other = copy.deepcopy(model)
    ours = fused(other)
    assert [line.names[0] for line in ours.fused] == ["0 + 1", "2 + 3", "4 + 5"], ours

    def learned(network: nn.Module) -> list[Tensor]:
        image = x.clone().requires_grad_()
        y = network(image)
        (y * torch.arange(y.numel(), device=device).view_as(y)).sum().backward()
        return [y, image.grad]

    expected = learned(model)
    with use_backend("cuda"):
        got = learned(ours.model)
        assert torch.equal(ours.model.eval()(x), expected[0])
    pairs = zip(
        (*got, *(p.grad for p in other.parameters())), (*expected, *(p.grad for p in model.parameters())), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: None)
    return model


def shared() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    model[2].weight = model[0].weight
    return model


def depthwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "hook": (hooked, "it has hooks, which would see another tensor"),
    "shared parameter": (shared, "it shares its weight with another layer"),
    "depthwise": (depthwise, "it is in training mode: a pair is fused for inference"),
}


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_leaves_a_chain_alone(make: Callable[[], nn.Module], why: str) -> None:
    report = fused(make().train())
    assert not report.fused and [line.reason for line in report.unfused] == [why]


def test_a_computed_filter_goes_on_being_computed() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.ReLU())
    report = fused(model.train())
    assert not report.fused and {n for n, _ in report.model.named_parameters()} == {
        n for n, _ in model.named_parameters()
    }


def test_each_part_by_its_own_mode() -> None:
    """A frozen backbone is folded; what is trained keeps its norm."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
    model[:3].eval()
    model[3:].train()
    report = fused(model)
    assert [(line.names[0], line.layer.split("(")[0]) for line in report.fused] == [
        ("0 + 1 + 2", "FusedConv2dForInference"),
        ("3 + 4", "Conv2dAct"),
    ]
    assert not report.unfused
