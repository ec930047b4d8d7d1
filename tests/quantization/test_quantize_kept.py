"""quantize(mode="static"): what stays in float, and why: layers, modules with hooks, code that cannot be traced."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import quantize
from cnnkernels.nn import Int8Conv2d
from helpers.models.quantize import ResNet, Untraceable, close, conv_norm, count, images, trained

pytestmark = pytest.mark.usefixtures("on_the_reference")


class Own(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation, as model libraries have it."""

    def forward(self, input: Tensor) -> Tensor:
        normed = F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return F.relu(normed, inplace=True)


class Kept(nn.Module):
    """One layer among others that stays in float; the sum around it is another shape's where that matters."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Conv2d(3, 4, 1), layer, nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.layer(self.first(x))))


def hooked() -> nn.Module:
    layer = nn.Conv2d(4, 4, 1)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


def parametrized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))


STAYS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "hooks": (hooked, "it has hooks, which would see another tensor"),
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 1), "no INT8 kernel"),
    "norm": (lambda: nn.GroupNorm(2, 4), "no INT8 kernel"),
    "batch norm of the batch": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False), "it does not stand behind a layer that could take it in"
    ),
    "pool to more than one": (lambda: nn.AdaptiveAvgPool2d(2), "no INT8 kernel"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "why"), STAYS.values(), ids=STAYS)
def test_stays_in_float_with_the_reason(make: Callable[[], nn.Module], why: str) -> None:
    model, x = Kept(make()).eval(), images()
    result = quantize(model, x)
    assert [(line.names, line.reason) for line in result.kept][:1] == [(("layer",), why)], result
    assert f"kept      {result.kept[0]}" in str(result)
    assert count(result.model, Int8Conv2d) == 2
    close(result, model, x)


@pytest.mark.parametrize("make", [lambda: Own(4, 4, 1), parametrized, lambda: nn.Conv2d(4, 4, 1)])
def test_layers_of_any_spelling(make: Callable[[], nn.Module]) -> None:
    """A subclass with arithmetic of its own and a filter that is computed are what their code computes."""
    model, x = Kept(make()).eval(), images()
    result = quantize(model, x)
    assert count(result.model, Int8Conv2d) == len(result.quantized) == 3 and not result.notes
    close(result, model, x)


def test_a_norm_of_any_spelling_is_folded() -> None:
    model, x = trained(nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4), nn.Conv2d(4, 4, 1))), images()
    result = quantize(model, x)
    assert len(result.quantized) == 2 and not result.kept and not result.notes, result
    assert result.quantized[0].names == ("0 + 1 + 1_1",) and count(result.model, nn.BatchNorm2d) == 0
    close(result, model, x)


def test_filter_fn_and_norms_in_training() -> None:
    model, x = trained(ResNet()), images()
    result = quantize(model, x, filter_fn=lambda module, name: name not in ("stem.0", "fc"))
    assert {line.names: line.reason for line in result.kept if line.reason == "filter_fn leaves it out"}.keys() == {
        ("stem.0",), ("fc",)
    }  # fmt: skip
    close(result, model, x)
    expected = model(x)
    model.layer1.bn1.train()
    result = quantize(copy.deepcopy(model), x)
    assert result.notes == ("layer1.bn1 was in training mode, and is quantized as in evaluation",)
    with torch.no_grad():
        assert (result.model(x) - expected).norm() <= 0.03 * expected.norm()


def test_hooks_see_what_they_saw() -> None:
    model, x = trained(nn.Sequential(conv_norm(3, 6), conv_norm(6, 6), nn.Conv2d(6, 4, 1))), images()
    seen: list[tuple[Tensor, Tensor]] = []
    for module in (model, model[1]):
        module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    model(x)
    expected = list(seen)
    result = quantize(model, x)
    seen.clear()
    result.model(x)
    assert len(seen) == 2 and count(result.model, Int8Conv2d) == 3
    for (got_in, got_out), (was_in, was_out) in zip(seen, expected, strict=True):
        assert got_in.dtype is got_out.dtype is torch.float32
        assert (got_in - was_in).norm() <= 0.03 * was_in.norm() and (got_out - was_out).norm() <= 0.03 * was_out.norm()


class Encoder(nn.Module):
    """Has what code around it asks for: an attribute, a property, a method."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.block, self.number = conv_norm(3, 3), number

    @property
    def stride(self) -> int:
        return 1

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.number

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Asks(nn.Module):
    """Goes through its parts by itself, as detectors do, and looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(Encoder(1), Encoder(2))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part.scaled(part(x)[..., :: part.stride]) + part.number
        return x if x.sum() > -1e9 else -x


def test_parts_keep_what_code_around_them_asks_for() -> None:
    model, x = trained(Asks()), images()
    result = quantize(model, x)
    assert len(result.quantized) == 2 and len(result.notes) == 1, result
    close(result, model, x)


class Counts(nn.Module):
    """Keeps state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x)


def test_code_that_cannot_be_traced() -> None:
    result = quantize(trained(Untraceable()), images())
    assert len(result.notes) == 1 and "its parts are quantized one by one, with floats between them" in result.notes[0]
    assert f"note      {result.notes[0]}" in str(result)
    model, x = trained(Counts()), images()
    model(x)
    result = quantize(model, x)
    assert not result.notes and model.calls == result.model.calls == 1, "calibrating counts for nothing"
    result.model(x)
    assert result.model.calls == 2 and isinstance(result.model.conv, Int8Conv2d)
