"""replace_layers(fuse=True): batch norms with their activation, and residuals, in inference and training."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels import use_backend
from cnnkernels.convert.fused import FusedBatchNorm2dForInference
from cnnkernels.convert.replace import Replacement
from helpers.models.fusion import fused, image, trained


class Block(nn.Module):
    """ResNet's: one ReLU called twice, and an addition in place."""

    def __init__(self, code: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.relu, self.code = nn.ReLU(inplace=True), code
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.code is not None:
            return self.code(self, x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation and a forward of its own, as model libraries have it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        numbers = self.running_mean, self.running_var, self.weight, self.bias
        return self.act(F.batch_norm(x, *numbers, self.training, self.momentum, self.eps))


class Reparameterized(nn.Module):
    """RepVGG's: a batch norm that stands behind no convolution is a branch of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.identity = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.identity(x) + self.norm(self.conv(x)))


def smooth(m: nn.Module, x: Tensor) -> Tensor:
    return F.silu(m.bn1(m.conv1(x)) + m.conv2(x))


def plain(m: nn.Module, x: Tensor) -> Tensor:
    return x + m.bn1(m.conv1(x))


def network(*blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), NormAct(4), *blocks, nn.Conv2d(4, 2, 1))


def names(report: Replacement) -> dict[str, str]:
    return {line.names[0]: line.layer.partition("(")[0] for line in report.fused}


# What is written, and in training and evaluation what is fused of its third part.
BLOCKS: dict[str, tuple[Callable[[], nn.Module], list[str], list[str]]] = {
    "residual": (
        Block,
        ["2.bn1 + 2.relu", "2.bn2 + 2.add + 2.relu"],
        ["2.conv1 + 2.bn1 + 2.relu", "2.conv2 + 2.bn2 + 2.add + 2.relu"],
    ),
    "smooth": (
        lambda: Block(smooth),
        ["2.bn1 + 2.add + 2.silu"],
        ["2.conv1 + 2.bn1", "2.conv2 + 2.add + 2.silu"],
    ),
    "batch norm in a sum": (
        Reparameterized, ["2.norm + 2.add + 2.relu"], ["2.conv + 2.norm + 2.add + 2.relu"]
    ),
    "no activation": (
        lambda: Block(plain), ["2.bn1 + 2.add"], ["2.conv1 + 2.bn1 + 2.add"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("case", BLOCKS.values(), ids=BLOCKS)
def test_what_is_fused(device, case: tuple[Callable[[], nn.Module], list[str], list[str]], trains: bool) -> None:
    """And numbers, gradients and statistics are those of the layers apart."""
    make, in_training, in_evaluation = case
    model = trained(network(make()), device).train(trains)
    report = fused(model)
    wanted = in_training if trains else in_evaluation
    assert sorted(name for name in names(report) if name.startswith("2.")) == sorted(wanted), report
    first = "1 + 1.act" if trains else "0 + 1 + 1.act"
    assert names(report)[first] == ("BatchNorm2dAct" if trains else "FusedConv2dForInference")
    x = image(device)
    ours, theirs = pickle.loads(pickle.dumps(report.model)), copy.deepcopy(model)
    with use_backend("cuda"):
        got, expected = ours(x), theirs(x)
        torch.testing.assert_close(got, expected)
        if not trains:
            with pytest.raises(RuntimeError, match="fused for inference"):
                ours.train()(x)
            return
        assert list(ours.state_dict()) == list(model.state_dict())
        weights = torch.arange(got.numel(), device=device).view_as(got).double().cos()
        (got * weights).sum().backward()
        (expected * weights).sum().backward()
        for (name, mine), (same, its) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert name == same
            torch.testing.assert_close(mine.grad, its.grad)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_norm_behind_no_convolution(device) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.LeakyReLU(0.2)), device)
    report = fused(model)
    assert names(report) == {"2 + 3": "FusedBatchNorm2dForInference"}
    assert isinstance(report.model[2], FusedBatchNorm2dForInference) and report.model[2].weight is model[2].weight
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(image(device)), model(image(device)))


def hooked() -> nn.Module:
    block = Block()
    block.bn2.register_forward_hook(lambda module, args, output: None)
    return block


def shared() -> nn.Module:
    block = Block()
    block.bn2.weight = block.bn1.weight
    return block


class Frozen(Block):
    def train(self, mode: bool = True) -> Frozen:
        return super().train(mode)


def changed(model: nn.Module, x: Tensor) -> Tensor:
    """A sum whose activation is asked for its input in backward: a kernel would keep the result, which changes."""
    return F.relu6(model.bn1(model.conv1(x)) + x)


class Changes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


REFUSED: dict[str, tuple[Callable[[], tuple[nn.Module, ...]], str]] = {
    "hook": (lambda: (hooked(),), ""),
    "shared parameter": (lambda: (shared(),), ""),
    "own train": (lambda: (Frozen(),), "it has a train() of its own"),
    "reads a parameter": (
        lambda: (Block(lambda m, x: m.bn2(m.conv2(x)) + x * m.conv1.weight.mean() + m.bn1(x).mean()),),
        "its code reads parameters or makes tensors itself",
    ),
}


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_leaves_a_sum_alone(device, make: Callable[[], tuple[nn.Module, ...]], why: str) -> None:
    model = trained(network(*make()), device).train()
    report = fused(model)
    if why:
        assert why in [line.reason for line in report.unfused], report
    assert not any("bn2 + 2.add" in name for name in names(report)), report
    x, ours, theirs = image(device), report.model, copy.deepcopy(model)
    with use_backend("cuda"):
        got, expected = ours(x), theirs(x)
    torch.testing.assert_close(got, expected)
    got.sum().backward()
    expected.sum().backward()


def test_a_model_that_adds_itself(device) -> None:
    """Becomes another object, unless it is to stay the one it is."""
    model = trained(Block(), device)
    report = fused(model)
    assert list(names(report)) == ["conv1 + bn1 + relu", "conv2 + bn2 + add + relu"] and not report.unfused
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x.clone()), model(x.clone()))
    report = cnnkernels.replace_layers(model, fuse=True, inplace=True)
    assert list(names(report)) == ["conv1 + bn1", "conv2 + bn2"] and report.model is model
    assert [line.reason for line in report.unfused] == ["the model's own code adds, and it is to be changed in place"]


def test_a_sum_whose_result_is_changed_in_place(device) -> None:
    block = Block(changed)
    model = trained(network(block, Changes()), device).train()
    assert not any("add" in name for name in names(fused(model)))
    model = trained(network(block), device).train()
    assert "2.bn1 + 2.add + 2.relu6" in names(fused(model))
