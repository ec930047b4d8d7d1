"""Quantization-aware training: what is trained is what the INT8 model computes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import convert_qat, prepare_qat, quantize
from cnnkernels.nn import Int8Conv2d, Int8Linear
from cnnkernels.quantization import FakeQuantize, fake_quantize, fake_quantize_weight
from cnnkernels.quantization.units import Unit
from helpers.models.quantize import (
    Branches,
    Functional,
    MobileNet,
    Pools,
    ResNet,
    Twice,
    Untraceable,
    conv_norm,
    images,
    trained,
)

pytestmark = pytest.mark.usefixtures("on_the_reference")


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def train(model: nn.Module, steps: int = 3) -> None:
    """A few steps towards nothing in particular, so that weights, statistics and ranges move."""
    generator = torch.Generator().manual_seed(5)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.02)
    for _ in range(steps):
        x = images() * (1 + torch.rand((), generator=generator))
        optimizer.zero_grad()
        (first(model(x)) - 0.3).square().mean().backward()
        optimizer.step()


def codes_and_floats(prepared: nn.Module, result: Any, x: Tensor) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Each value of the INT8 model beside the trained one's."""
    seen: dict[str, list[Tensor]] = {}

    def noting(key: str) -> Callable[..., None]:
        return lambda module, args, output: seen.setdefault(key, []).append(output)

    handles = []
    for value in result.values:
        handles.append(prepared.get_submodule(value.tap).register_forward_hook(noting(f"float {value.tap}")))
        handles.append(result.model.get_submodule(value.module).register_forward_hook(noting(f"int8 {value.tap}")))
    with torch.no_grad():
        prepared.eval()(x)
        result.model(x)
    for handle in handles:
        handle.remove()
    for value in result.values:
        yield value, seen[f"int8 {value.tap}"][0], seen[f"float {value.tap}"][0]


class Paths(nn.Module):
    """Drops paths in training, as residual networks do, in both of the ways that libraries have."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_norm(3, 6), conv_norm(6, 6, act=None), conv_norm(6, 6, act=None)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        if self.training:
            y = y * y.new_empty(y.shape[0], 1, 1, 1).bernoulli_(0.5).div_(0.5)
        x = torch.relu(y + x)
        y = self.c(x)
        if self.training:
            noise = torch.empty([y.shape[0], 1, 1, 1], dtype=y.dtype, device=y.device)
            y = y * noise.bernoulli_(0.8) / 0.8
        return self.head(torch.relu(y + x))


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation and a forward of its own, as model libraries have it."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        normed = F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return F.relu(normed, inplace=True)


class Norms(nn.Module):
    """Batch norms of other spellings, beside a change in place through a view; one is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 6, 3), NormAct(6), nn.Conv2d(6, 6, 1)
        self.frozen, self.c = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)

    def train(self, mode: bool = True) -> Norms:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y[:, :1] *= 2
        return self.c(F.dropout2d(self.frozen(self.b(self.norm(y))), 0.1, self.training))


MODELS = [ResNet, MobileNet, Pools, Functional, Twice, Branches, Untraceable]


@pytest.mark.parametrize("make", MODELS)
def test_the_trained_model_is_the_int8_model(make: type[nn.Module]) -> None:
    """Layer by layer, given the same codes: in float64, a code is at most half a step and INT8's rounding away.

    As whole models they may go apart by a few codes more, where a value at the border of two takes another.
    """
    model, x = trained(make()), images()
    kept = copy.deepcopy(model.state_dict())
    prepared = prepare_qat(model.train(), x)
    train(prepared)
    assert all(torch.equal(kept[k], v) for k, v in model.state_dict().items()), "the float model was trained too"
    result = convert_qat(prepared)
    units = {tuple(m.names): copy.deepcopy(m).double().eval() for m in prepared.modules() if isinstance(m, Unit)}
    for unit in units.values():
        unit.codes = []  # by the float's operators, not by the INT8 layer's
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    for name, module in result.model.named_modules():
        module.register_forward_hook(lambda m, args, output, name=name: seen.update({name: (args, output)}))
    with torch.no_grad():
        got = first(result.model(x))
        for value in result.values:
            if value.names not in units:
                continue
            layer: Any = result.model.get_submodule(value.module)
            inputs, output = seen[value.module]
            scales = (layer.input_scale, layer.residual_scale), (layer.input_zero_point, layer.residual_zero_point)
            exact = units[value.names](*(number(*operand) for operand in zip(inputs, *scales, strict=False)))
            if value.code is None:
                torch.testing.assert_close(output.double(), exact, rtol=1e-5, atol=1e-5)
                continue
            code = (exact / value.code.scale + value.code.zero_point).clamp(-128, 127)
            assert (output - code).abs().max() <= 0.5 + 1e-3
        expected = first(prepared.eval()(x))
    assert (got - expected).norm() <= 0.02 * expected.norm()
    assert len(units) == len(result.quantized) > 0
    assert all(20 < noise.decibels < 70 for noise in result.signal_to_noise(x))


@pytest.mark.parametrize("make", [*MODELS, Paths, Norms])
def test_whole_models_are_bit_for_bit_what_was_trained(make: type[nn.Module]) -> None:
    x = images()
    prepared = prepare_qat(trained(make()).train(), x)
    train(prepared)
    result = convert_qat(prepared)
    assert len(result.quantized) > 1 and bool(result.notes) == (make is Untraceable), result
    with torch.no_grad():
        expected = prepared.eval()(x)
        for a, b in zip(*((o if isinstance(o, tuple) else (o,)) for o in (result.model(x), expected)), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(first(prepared(x)), first(expected)), "the value is another where there is a gradient"
    first(prepared(x)).sum().backward()
    assert all(p.grad is not None for p in prepared.parameters())


def number(operand: Tensor, scale: float, zero_point: int) -> Tensor:
    """What codes stand for; floats become codes first, as in the layer."""
    if operand.is_floating_point():
        return fake_quantize(operand, torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)).double()
    return (operand.double() - zero_point) * scale


def powers_of_two(model: nn.Module) -> nn.Module:
    """Scales that are powers of two and small integers as weights: no product, sum or scale is rounded."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            generator = torch.Generator().manual_seed(2)
            module.weight.data = torch.randint(-8, 8, module.weight.shape, generator=generator).float()
            module.weight.data.flatten(1)[:, 0] = 127.0
            module.bias = None
        if isinstance(module, FakeQuantize):
            module.low, module.high = torch.tensor(-128 * 2.0**-3), torch.tensor(127 * 2.0**-3)
    return model


def test_bit_for_bit_where_nothing_is_rounded() -> None:
    x = images(4) * 8
    model = nn.Sequential(
        *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(5, 6)),
    )
    prepared = powers_of_two(prepare_qat(model, x)).eval()
    result = convert_qat(prepared)
    compared = 0
    for value, got, expected in codes_and_floats(prepared, result, x):
        number = got if value.code is None else (got.float() - value.code.zero_point) * value.code.scale
        assert torch.equal(number, expected), value
        assert value.code is None or (value.code.scale, value.code.zero_point) == (0.125, 0)
        compared += 1
    assert compared == 4


@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_rounding_a_filter_and_folding_a_norm_commute(sign: float) -> None:
    """Also where the norm's weight is negative, or 0, as in ResNets that begin with it."""
    model, x = trained(conv_norm(3, 4, act=None)), images()
    with torch.no_grad():
        model[1].weight.abs_().mul_(sign)
    prepared = prepare_qat(model, x)
    layer = next(m for m in convert_qat(prepared).model.modules() if isinstance(m, Int8Conv2d))
    codes = fake_quantize_weight(model[0].weight) / (model[0].weight.abs().amax((1, 2, 3), keepdim=True) / 127)
    assert torch.equal(layer.weight.float(), sign * codes.round())


def test_gradients_are_those_of_what_is_not_rounded() -> None:
    """By hand: the layer's gradients at the rounded operands, cut off where the output's code was clipped."""
    x = images()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    prepared = prepare_qat(model, x).eval()
    taps = {tuple(m.names): m.watch for m in prepared.modules() if hasattr(m, "names") and hasattr(m, "watch")}
    middle = taps["0", "1"]
    middle.high.fill_(middle.high / 2)  # clips
    weights = dict(prepared.named_parameters())
    got = torch.autograd.grad(prepared(x).square().sum(), list(weights.values()))
    first_weight, first_bias = model[0].weight, model[0].bias
    rounded = [fake_quantize_weight(layer.weight).detach().requires_grad_() for layer in (model[0], model[2])]
    y = nn.functional.conv2d(taps[("input",)].rounded(x), rounded[0], first_bias).relu()
    scale, zero_point = middle.code()
    inside = torch.round(y.detach() * (1 / torch.tensor(scale))) <= 127 - zero_point
    assert not inside.all()
    code = middle.rounded(y).detach() + (y - y.detach()) * inside
    out = nn.functional.conv2d(code, rounded[1], model[2].bias)
    loss = out.square().sum()
    expected = torch.autograd.grad(loss, [rounded[0], first_bias, rounded[1], model[2].bias])
    assert [tuple(g.shape) for g in got] == [tuple(first_weight.shape), (4,), (2, 4, 1, 1), (2,)]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_training_makes_up_for_rounding() -> None:
    """The target is the float model itself; one weight of each filter is far out and leaves the others few codes."""
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = trained(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    )
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.flatten(1)[:, 4] *= 30
        target = model(x)
    prepared = prepare_qat(model, x)
    optimizer = torch.optim.Adam(prepared.parameters(), lr=3e-4)
    for _ in range(60):
        optimizer.zero_grad()
        (prepared(x) - target).square().mean().backward()
        optimizer.step()

    def error(result: Any) -> float:
        with torch.no_grad():
            return (result.model(x) - target).square().mean().item()

    assert error(convert_qat(prepared)) < 0.7 * error(quantize(model, x))


def test_noise_is_beside_the_float_model() -> None:
    """Not beside the one whose weights are rounded: before any training, that of the model quantized as it is."""
    model, x = trained(nn.Sequential(conv_norm(3, 4), nn.Conv2d(4, 4, 1))), images()
    got = convert_qat(prepare_qat(model, x)).signal_to_noise(x)
    expected = quantize(model, x).signal_to_noise(x)
    assert [n.decibels for n in got] == [pytest.approx(n.decibels, abs=0.2) for n in expected]


def test_ranges_follow_and_stop() -> None:
    x = images()
    prepared = prepare_qat(trained(conv_norm(3, 4)).train(), x, momentum=0.5)
    tap = prepared.get_submodule("input_1_tap" if hasattr(prepared, "input_1_tap") else "input_tap").watch
    assert tap.range() == (x.min().item(), x.max().item()), "the range begins with the example"
    prepared.train()(3 * x)
    assert tap.high.item() == pytest.approx(2 * x.max().item())
    before = tap.range()
    prepared.eval()(100 * x)
    assert tap.range() == before


def test_state_and_modes() -> None:
    x = images()
    float_model = trained(MobileNet())
    prepared = prepare_qat(float_model.train(), x)
    assert prepared.training and all(m.training for m in prepared.modules() if isinstance(m, nn.BatchNorm2d))
    assert not prepare_qat(float_model.eval(), x).training
    train(prepared)
    other = prepare_qat(trained(MobileNet()), 2 * x)
    stored = io.BytesIO()
    torch.save(prepared.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    expected = convert_qat(prepared).model(x)
    assert torch.equal(convert_qat(other).model(x), expected)
    assert torch.equal(convert_qat(copy.deepcopy(prepared)).model(x), expected)
    assert prepared.training, "converting changed the mode of what was converted"
    train(prepared)
    assert not torch.equal(convert_qat(prepared).model(x), expected), "training went on after converting"
    stored = io.BytesIO()
    torch.save(other, stored)
    stored.seek(0)
    assert torch.equal(convert_qat(torch.load(stored, weights_only=False)).model(x), expected)


def test_dropout_and_filter() -> None:
    """A dropout written as a function in training is one: it drops in training and is gone in INT8."""
    x = images()
    prepared = prepare_qat(trained(Functional()).train(), x, filter_fn=lambda module, name: name != "second")
    assert not torch.equal(prepared(x), prepared(x))
    assert torch.equal(prepared.eval()(x), prepared(x))
    result = convert_qat(prepared, backend="reference")
    assert [line.reason for line in result.kept if line.names == ("second",)] == ["filter_fn leaves it out"]
    int8 = [m for m in result.model.modules() if isinstance(m, (Int8Conv2d, Int8Linear))]
    assert len(int8) == 2 and all(m.backend == "reference" for m in int8)


def test_batch_norms_of_other_spellings_learn_as_they_do() -> None:
    """Statistics and the count of batches are the float model's after one batch, whatever is rounded behind them."""
    x = images()
    model = trained(Norms()).train()
    prepared = prepare_qat(model, x, filter_fn=lambda module, name: False)
    prepared(x)
    model(x)
    norms = {name: m for name, m in prepared.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(norms) == 2
    for name, of in (("norm", model.norm), ("frozen", model.frozen)):
        [mine] = [m for key, m in norms.items() if name in key]
        assert mine.training == mine.train().training == (name == "norm"), (
            "its own train() does not train the frozen one"
        )
        assert mine.num_batches_tracked == of.num_batches_tracked == (name == "norm")
        torch.testing.assert_close(mine.running_mean, of.running_mean)
        torch.testing.assert_close(mine.running_var, of.running_var)


def test_a_weight_that_is_computed_goes_on_being_trained() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))), images()
    prepared = prepare_qat(model, x)
    prepared(x).sum().backward()
    assert len(list(prepared.parameters())) == 5 and all(p.grad is not None for p in prepared.parameters())
    result = convert_qat(prepared)
    assert [line.reason for line in result.kept] == ["its weight is computed, of parameters that are trained"]
    assert torch.equal(result.model(x), prepared.eval()(x))


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"argument 'model' must be a torch.nn.Module, not str"):
        prepare_qat("model", images())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="momentum must be above 0 and at most 1, but got 0"):
        prepare_qat(conv_norm(3, 4), images(), momentum=0)
    with pytest.raises(TypeError, match=r"argument 'model' must be a torch.nn.Module, not int"):
        convert_qat(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a model from prepare_qat"):
        convert_qat(conv_norm(3, 4))
    prepared = prepare_qat(conv_norm(3, 4).train(), images())
    prepared(images() * torch.nan)
    with pytest.raises(ValueError, match="a fake quantizer has a range from nan to nan"):
        convert_qat(prepared)
