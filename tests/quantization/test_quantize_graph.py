"""quantize(mode="static"): what becomes INT8 in models as they are written, and what it computes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels import quantize
from cnnkernels.nn import Dequantize, Int8AdaptiveAvgPool2d, Int8AvgPool2d, Int8Conv2d, Int8Linear, Quantize
from helpers.models.quantize import (
    BasicBlock,
    Branches,
    Functional,
    MobileNet,
    Pools,
    ResNet,
    Twice,
    Untraceable,
    close,
    conv_norm,
    count,
    images,
    outputs,
    trained,
)

pytestmark = pytest.mark.usefixtures("on_the_reference")
LAYERS = Int8Conv2d, Int8Linear


# The model, its INT8 layers, Quantize, Dequantize, and lines of the report on what stays.
MODELS: dict[str, tuple[Callable[[], nn.Module], int, int, int, int]] = {
    "ResNet": (ResNet, 7, 1, 0, 0),
    "MobileNet": (MobileNet, 11, 1, 0, 0),
    "pools and linear layers": (Pools, 5, 1, 0, 0),
    "functions": (Functional, 3, 1, 0, 0),
    "a layer twice": (Twice, 2, 2, 0, 1),
    "branches": (Branches, 2, 1, 1, 2),
    "untraceable": (Untraceable, 3, 1, 0, 0),  # a block, whose image keeps its order, and two layers by themselves
}


@pytest.mark.parametrize(("make", "layers", "into", "out", "kept"), MODELS.values(), ids=MODELS)
def test_models(make: Callable[[], nn.Module], layers: int, into: int, out: int, kept: int) -> None:
    model, x = trained(make()), images()
    state, before = copy.deepcopy(model.state_dict()), outputs(model, x)
    result = quantize(model, x)
    assert [count(result.model, *LAYERS), count(result.model, Quantize), count(result.model, Dequantize)] == [
        layers, into, out
    ], result  # fmt: skip
    assert (len(result.quantized), len(result.kept)) == (layers, kept), result
    close(result, model, x)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(model, x), strict=True)), "the model itself changed"
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    numbers = [b for name, b in result.model.named_buffers() if name.endswith(("scales", "zero_points"))]
    weights = result.int8_bytes - sum(b.numel() * b.element_size() for b in numbers)
    assert not result.model.training and result.float_bytes > 1.9 * weights


def plain_unit(layer: Any, x: Tensor, residual: Tensor | None, conv: nn.Conv2d) -> Tensor:
    """INT8's formula from the layer's numbers, in fp64, where no product or sum is rounded."""
    sums = F.conv2d(
        x.double() - layer.input_zero_point, layer.weight.double(), None, conv.stride, conv.padding, groups=conv.groups
    )
    y = sums * layer.weight_scale.double().view(-1, 1, 1) * layer.input_scale + layer.bias.double().view(-1, 1, 1)
    if residual is not None:
        y = y + (residual.double() - layer.residual_zero_point) * layer.residual_scale
    return y.relu() if layer.activation == "relu" else y


def test_a_block_is_the_formula() -> None:
    """Each layer of a residual block, given the codes it was given: at most the border of two codes apart."""
    model, x = trained(BasicBlock(6, 6)), images(6)
    result = quantize(model, x)
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    for name, module in result.model.named_modules():
        module.register_forward_hook(lambda m, args, output, name=name: seen.update({name: (args, output)}))
    result.model(x)
    (codes, residual), output = seen["conv2"]
    assert codes.dtype is residual.dtype is torch.int8, "the residual is not INT8"
    layer = result.model.conv2
    assert layer.activation == "relu" and output.dtype is torch.float32
    y = plain_unit(layer, codes, residual, model.conv2)
    torch.testing.assert_close(output, y.float(), rtol=1e-5, atol=1e-6)
    (codes,), output = seen["conv1"]
    layer = result.model.conv1
    exact = plain_unit(layer, codes, None, model.conv1) / layer.out_scale
    clipped = (exact.clamp(-128 - layer.out_zero_point, 127 - layer.out_zero_point)) + layer.out_zero_point
    assert (output.double() - clipped).abs().max() <= 0.5 + 1e-4
    # The weights are the convolution's with the batch norm folded, each filter with a scale of its own.
    scale = model.bn1.weight / (model.bn1.running_var + model.bn1.eps).sqrt()
    folded = model.conv1.weight * scale.view(-1, 1, 1, 1)
    largest = folded.abs().amax((1, 2, 3))
    torch.testing.assert_close(layer.weight_scale, largest / 127)
    assert ((layer.weight * layer.weight_scale.view(-1, 1, 1, 1) - folded).abs().amax((1, 2, 3)) <= largest / 253).all()
    assert layer.weight.flatten(1).abs().amax(1).tolist() == [127] * 6


def test_names_are_the_models() -> None:
    result = quantize(trained(ResNet()), images())
    assert result.quantized[2].names == ("layer1.conv2 + layer1.bn2 + layer1.relu",)
    assert {"stem.0.weight", "layer1.conv1.weight", "layer2.downsample.0.weight_scale", "fc.weight"} <= set(
        result.model.state_dict()
    )
    values = {value.names[0]: value for value in result.values}
    assert values["x"].code is not None and values["fc"].code is None
    assert values["layer1.conv1"].code.zero_point == -128, "what a ReLU leaves begins at the lowest code"
    assert str(result).startswith("quantized 7, kept 0, ")


@pytest.mark.parametrize("observer", ["percentile", "entropy", "mse"])
def test_observers(observer: str) -> None:
    model, x = trained(conv_norm(3, 6)), images(batch=16)
    result = quantize(model, x, observer=observer, percentile=99.9)
    close(result, model, x, 15)
    whole = quantize(model, x)
    for value, all_of_it in zip(result.values, whole.values, strict=True):
        assert all_of_it.low <= value.low <= 0 and 0 < value.high <= all_of_it.high
    assert result.values != whole.values


def test_batches_of_every_kind() -> None:
    model, x = trained(conv_norm(3, 6)), images(batch=6)
    expected = [(pytest.approx(v.low), pytest.approx(v.high)) for v in quantize(model, x).values]
    for data in ([x[:2], x[2:]], ((y,) for y in x.split(1)), [{"input": x}], [[x]]):
        assert [(v.low, v.high) for v in quantize(model, data).values] == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_floating_types_go_on_in_theirs(dtype: torch.dtype) -> None:
    model, x = trained(Branches(), dtype), images(dtype=dtype)
    close(quantize(model, x), model, x, 25)


def test_two_runs_are_one() -> None:
    first, second = (quantize(trained(BasicBlock(3, 6, 2)), images()) for _ in range(2))
    assert first.values == second.values and str(first) == str(second)
    for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    x = images()
    assert torch.equal(first.model(x), second.model(x))
    assert torch.equal(first.model(x)[:1], first.model(x[:1])), "a sample depends on its batch"


@pytest.mark.parametrize("make", [ResNet, Pools])
def test_every_backend_gives_the_same_bits(make: type[nn.Module], kernel_backend: str, device: str) -> None:
    x = images(batch=1, size=12 if make is Pools else 8).to(device)
    model = quantize(trained(make()).to(device), x).model
    expected = model(x)
    with cnnkernels.use_backend(kernel_backend):
        assert torch.equal(model(x), expected)


def test_save_load_and_copy() -> None:
    x = images()
    result = quantize(trained(ResNet()), x)
    expected = result.model(x)
    stored = io.BytesIO()
    torch.save(result.model, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    assert torch.equal(loaded(x), expected)
    assert torch.equal(copy.deepcopy(result.model)(x), expected)
    # The state holds scales and zero points too: a model quantized with other data takes it over whole.
    other = quantize(trained(ResNet()), 3 * x + 1).model
    assert not torch.equal(other(x), expected)
    stored = io.BytesIO()
    torch.save(result.model.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(other(x), expected)


def test_a_layer_called_twice_keeps_one_weight() -> None:
    result = quantize(trained(Twice()), images())
    first, second = (module for module in result.model.modules() if isinstance(module, Int8Conv2d))
    assert first.weight is second.weight and first.weight_sum is second.weight_sum
    assert first.input_scale != second.input_scale


class Broadcast(nn.Module):
    """Sums that no epilogue makes: of another shape, of a number, of a value with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y = self.b(y) + y.mean((2, 3), keepdim=True)
        y = y + self.c(y[:, :, :1, :1]) + 1
        return y + y


class InPlace(nn.Module):
    """The ReLU in place changes what the sum reads, which is a well-known surprise."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(self.relu(y)) + y


class TwoConvolutions(nn.Module):
    """Of two results added, the later layer takes the sum, whichever stands first in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(x)
        return torch.add(y, self.a(x))


@pytest.mark.parametrize("make", [Broadcast, InPlace, TwoConvolutions])
def test_sums(make: type[nn.Module]) -> None:
    model, x = trained(make()), images()
    result = quantize(model, x)
    close(result, model, x)
    read = {str(node.target): len(node.args) for node in result.model.graph.nodes if str(node.target) in "abc"}
    assert (
        read
        == {Broadcast: {"a": 1, "b": 1, "c": 1}, InPlace: {"a": 1, "b": 2}, TwoConvolutions: {"a": 2, "b": 1}}[make]
    )


def test_one_layer_alone() -> None:
    model, x = trained(nn.Sequential(nn.Conv2d(3, 4, 3)))[0], images()
    result = quantize(model, x)
    close(result, model, x)
    assert [line.names for line in result.quantized] == [("(the model)",)]


@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
def test_linear_layers_alone(mode: str) -> None:
    model, x = trained(ResNet()), images()
    model.again = model.fc
    result = quantize(model, mode=mode, backend="reference")
    assert [line.names for line in result.quantized] == [("fc", "again")]
    assert result.model.fc is result.model.again and result.model.fc.backend == "reference"
    assert {line.reason for line in result.kept} == {f"mode '{mode}' is for linear layers"} and len(result.kept) == 6
    got, expected = outputs(result.model, x)[0], outputs(model, x)[0]
    assert (got - expected).norm() <= 0.02 * expected.norm()
    assert type(result.model) is ResNet and isinstance(model.fc, nn.Linear)
    with pytest.raises(ValueError, match="no calibrated float model"):
        result.signal_to_noise(x)
    assert quantize(model, mode=mode, filter_fn=lambda module, name: False).quantized == ()


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "model": ({"model": 3}, TypeError, "argument 'model' must be a torch.nn.Module, not int"),
    "mode": ({"mode": "int4"}, ValueError, "mode must be one of static, dynamic, weight_only, but got 'int4'"),
    "observer": ({"observer": "max"}, ValueError, "observer must be one of minmax, .* but got 'max'"),
    "percentile": ({"percentile": 40}, ValueError, "percentile must be above 50 and at most 100, but got 40"),
    "percentile's type": ({"percentile": "9"}, TypeError, "argument 'percentile' must be float, not str"),
    "backend": ({"backend": "cudnn"}, ValueError, "cudnn"),
    "training": ({"model": nn.Conv2d(3, 3, 1)}, ValueError, "the model is in training mode: call eval()"),
    "no data": ({"calibration_data": None}, ValueError, "mode 'static' needs calibration_data"),
    "empty data": ({"calibration_data": []}, ValueError, "expected at least one batch of calibration_data"),
    "data for nothing": ({"mode": "dynamic"}, ValueError, "mode 'dynamic' takes no calibration_data"),
    "lazy": ({"model": nn.LazyConv2d(3, 1).eval()}, ValueError, "the model's parameter weight has no size yet"),
    "NaN": ({"calibration_data": images() * torch.nan}, ValueError, "the calibration data make values from nan to nan"),
}


@pytest.mark.parametrize(("change", "error", "message"), WRONG.values(), ids=WRONG)
def test_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"model": trained(nn.Sequential(nn.Conv2d(3, 3, 1))), "calibration_data": images()} | change
    with pytest.raises(error, match=message):
        quantize(**arguments)


class Options(nn.Module):
    """Arguments that are no tensors choose the way through the code; a tensor may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, twice: bool = False) -> Tensor:
        y = torch.relu(self.a(x))
        if mask is not None:
            y = y * mask
        return self.b(self.b(y)) if twice else self.b(y)


def test_arguments_that_are_no_tensors_are_fixed() -> None:
    model, x = trained(Options()), images()
    result = quantize(model, x)
    assert not result.notes and len(result.quantized) == 2
    close(result, model, x)
    assert torch.equal(result.model(x, mask=None, twice=False), result.model(x))
    with pytest.raises(ValueError, match="the captured model is for twice=False, but got twice=True"):
        result.model(x, twice=True)
    mask = (images(1) > 0).float()
    result = quantize(model, {"x": x, "mask": mask, "twice": True})
    assert len(result.quantized) == 3
    with torch.no_grad():
        got, expected = result.model(x, mask=mask, twice=True), model(x, mask, True)
    assert (got - expected).norm() <= 0.03 * expected.norm()


def test_layers_of_cnnkernels_and_none_at_all() -> None:
    model, x = trained(ResNet()), images()
    swapped = cnnkernels.replace_layers(model).model
    result = quantize(swapped, x)
    assert (len(result.quantized), len(result.kept)) == (7, 0)
    close(result, model, x)
    fused = cnnkernels.replace_layers(model, fuse=True).model
    result = quantize(fused, x)
    assert (len(result.quantized), len(result.kept)) == (7, 0)
    close(result, model, x)
    empty = quantize(nn.ReLU().eval(), x)
    assert str(empty) == "quantized 0, kept 0, empty" and torch.equal(empty.model(x), x.relu())


def test_averages_of_cnnkernels_carry_int8_as_torchs_do() -> None:
    body = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model, x = trained(nn.Sequential(*body, nn.Linear(4, 3))), images()
    kinds = [
        [type(layer) for layer in quantize(before, x).model.modules() if "Int8" in type(layer).__name__]
        for before in (model, cnnkernels.replace_layers(model).model)
    ]
    assert kinds[0] == kinds[1] and {Int8AvgPool2d, Int8AdaptiveAvgPool2d} <= set(kinds[0])


def test_compiled_whole() -> None:
    x = images()
    model = quantize(trained(ResNet()), x).model
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
        assert torch.equal(torch.export.export(model, (x,)).module()(x), expected)
