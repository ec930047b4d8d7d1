"""quantize's manners: the data that it takes, what it says of the others, the bar, and how far each layer is off."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cnnkernels import Quantization, convert_qat, prepare_qat, quantize
from helpers.models.quantize import ResNet, Untraceable, conv_norm, images, output, trained

pytestmark = pytest.mark.usefixtures("on_the_reference")


def small() -> nn.Module:
    return trained(conv_norm(3, 4))


def calls(model: nn.Module) -> None:
    device = next(model.parameters()).device
    for part in images().split(2):
        model(part.to(device))


def calls_by_name(model: Any) -> None:
    assert model(input=images()).shape == (4, 4, 12, 12)


def generates() -> Any:
    for part in images().split(2):
        yield part, torch.zeros(2)


LABELS = torch.zeros(4, dtype=torch.int64)
DATA: dict[str, Any] = {
    "loader": DataLoader(TensorDataset(images(), LABELS), batch_size=2),
    "dicts": [{"image": images(), "label": LABELS}],
    "named": [{"input": images(), "label": LABELS}],
    "function": calls,
    "function by name": calls_by_name,
    "generator": generates,
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_data_of_every_form(data: Any) -> None:
    assert quantize(small(), data).values == quantize(small(), images()).values


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "dataset": (TensorDataset(images(), LABELS), TypeError, r"a TensorDataset gives single samples: give .*DataLoader"),
    "an image": (
        [images()[0]],
        ValueError,
        r"the model raises .* for float32 \[3, 12, 12\]: .*a batch of one: \[1, 3, 12",
    ),
    "channels": (
        images(2),
        ValueError,
        r"the model raises RuntimeError for float32 \[4, 2, 12, 12\]: .*to have 3 channels",
    ),
    "other names": ([{"a": LABELS, "b": 1}], TypeError, "a batch has a, b, but the model's forward takes input"),
    "number": (5, TypeError, "or a function of the model, not int"),
}


@pytest.mark.parametrize(("data", "error", "message"), WRONG.values(), ids=WRONG)
def test_other_data_get_a_sentence(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quantize(small(), data)


def test_the_model_itself_is_not_what_a_function_gets() -> None:
    model = small()
    before = model[1].running_mean.clone()

    def trains(given: nn.Module) -> None:
        given.train()
        given.model[1].running_mean.zero_()
        given(images())

    quantize(model, trains)
    assert torch.equal(model[1].running_mean, before) and not model.training


def test_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    quantize(small(), DATA["loader"], progress=True)
    told = capsys.readouterr().err
    assert "1 of 2 batches" in told and "] 2 of 2 batches of calibration data" in told and told.endswith("\n")
    quantize(small(), generates, progress=True)
    assert "2 batches of calibration data" in capsys.readouterr().err
    quantize(small(), DATA["loader"])
    assert capsys.readouterr().err == "", "it is no terminal"


def test_a_cpu_is_for_checking() -> None:
    note = "note      on a CPU, INT8 is for checking, not for speed"
    result = quantize(small(), images())
    assert note in str(result) and not result.notes
    result.model.to("meta")
    assert note not in str(result)
    assert note not in str(quantize(nn.ReLU().eval(), images()))


def decibels(exact: Tensor, rounded: Tensor) -> float:
    return 10 * math.log10(exact.double().square().sum() / (exact.double() - rounded.double()).square().sum())


def test_the_errors_are_those_of_each_layer() -> None:
    """Of two layers: the first one's two numbers are one, the second's alone is by the float model's own values."""
    model, x = trained(nn.Sequential(conv_norm(3, 8), nn.Conv2d(8, 4, 3))), images()
    result = quantize(model, x)
    errors = result.errors(model, x.split(2))
    first, second = errors.layers
    assert (first.names, second.names) == (("0.0", "0.1", "0.2"), ("1",)) and first.alone == first.gathered
    assert (
        second.gathered
        == pytest.approx(errors.output)
        == pytest.approx(decibels(output(model, x), output(result.model, x)))
    )
    layer = result.model.get_submodule("1")
    given = output(model[0], x)
    assert second.alone == pytest.approx(decibels(output(model, x), output(layer, given)))
    assert first.gathered == pytest.approx(result.signal_to_noise(x)[1].decibels)


def as_qat(model: nn.Module, x: Tensor) -> Quantization:
    prepared = prepare_qat(model.train(), x)
    model.eval()
    return convert_qat(prepared.eval())


RESULTS: dict[str, tuple[Any, type[nn.Module], int]] = {
    "static": (quantize, ResNet, 7),
    "pieces": (quantize, Untraceable, 3),
    "dynamic": (lambda m, x: quantize(m, mode="dynamic"), ResNet, 1),
    "weight_only": (lambda m, x: quantize(m, mode="weight_only"), ResNet, 1),
    "qat": (as_qat, ResNet, 7),
}


@pytest.mark.parametrize(("make", "kind", "layers"), RESULTS.values(), ids=RESULTS)
def test_errors_of_every_kind_of_result(make: Any, kind: type[nn.Module], layers: int) -> None:
    model, x = trained(kind()), images()
    result = make(model, x)
    errors = result.errors(model, x)
    assert len(errors.layers) == layers and errors.output > 25
    assert all(layer.alone > 30 and layer.gathered > 25 for layer in errors.layers), errors


def test_the_table_names_the_worst(tmp_path: Path) -> None:
    model, x = trained(ResNet()), images()
    with torch.no_grad():
        model.layer2.bn2.bias[0] = -1000  # the ReLU behind it makes zeros of it
        model.fc.weight[:, 0] = 1000  # what multiplies these takes all of the others' codes
    errors = quantize(model, x).errors(model, x)
    assert errors.worst(1)[0].names == ("fc",)
    told = str(errors)
    assert told.splitlines()[-1].startswith("worst by itself: ") and told.splitlines()[-1].split()[3] == "fc"
    assert len(told.splitlines()) == 7 + 3
    errors.plot(tmp_path / "errors.png")
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="errors: expected at least one batch of images"):
        quantize(model, x).errors(model, [])


class Reasons(nn.Module):
    """What stays in float here stays there for another reason each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.read, self.after, self.alone = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y = self.c(self.read(y)) * y.sigmoid()
        return self.alone(self.after(self.b(y)).roll(1, 2)).flip(3)


def test_everything_in_float_has_its_own_reason() -> None:
    result = quantize(trained(Reasons()), images(), keep=["b"])
    assert {line.names[0]: line.reason for line in result.kept} == {
        "b": "keep names it",
        "read": "others read what it normalizes, too",
        "sigmoid": "no INT8 kernel: it reads floats",
        "mul": "no INT8 kernel: it reads floats",
        "after": "the layer before it stays in float",
        "roll": "what it reads is made in float",
        "alone": "it does not stand behind a layer that could take it in",
        "flip": "what it reads is made in float",
    }


class Sleeps(Untraceable):
    """A part that is not run."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(3, 4, 1)


def test_what_the_example_does_not_run() -> None:
    result = quantize(trained(Sleeps()), images())
    assert [(line.names, line.reason) for line in result.kept] == [
        (("auxiliary",), "the example input does not run it")
    ]
