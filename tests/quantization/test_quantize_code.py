"""quantize and prepare_qat on code as people write it: nothing is lost in silence, and the model itself stays."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import convert_qat, prepare_qat, quantize
from cnnkernels.nn import Int8AvgPool2d, Int8Conv2d, Int8Linear, Int8MaxPool2d, Quantize
from helpers.models.quantize import Net, close, count, distance, images, output, trained

pytestmark = pytest.mark.usefixtures("on_the_reference")
Code = Callable[[Any, Tensor], Tensor]


def slices(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    y[:, :1].zero_()
    return m.d(y)


def narrows(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    y.narrow(1, 0, 1).mul_(3)
    return m.d(y)


def chunks(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    y.chunk(2, 1)[0].add_(1)
    return m.d(y)


def detaches(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    y.detach().clamp_(0, 0.5)
    return m.d(y)


def transposes(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    y.transpose(1, 2).neg_()
    return m.d(y)


def copies(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    y[:, :1].copy_(y[:, 1:])
    return m.d(y)


def flattens(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    F.relu(y.flatten(1), inplace=True)
    return m.d(y)


def out(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    torch.mul(y, 3.0, out=y)
    return m.d(y)


def by_function(function: Callable[..., Any], *arguments: float) -> Code:
    def code(m: Any, x: Tensor) -> Tensor:
        y = m.c(x)
        function(y, *arguments)
        return m.d(y)

    return code


def aliases(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    kept = y
    kept += 1.0
    return m.d(y)


def lists(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    kept = [y]
    y += 1.0
    return m.d(kept[0]) + m.d(y)


def drops_nothing(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    F.dropout(y, 0.5, False).mul_(2)
    return m.d(y)


IN_PLACE: dict[str, Code] = {
    "slice": slices, "narrow": narrows, "chunk": chunks, "detach": detaches, "transpose": transposes, "copy": copies,
    "flatten": flattens, "out": out, "relu_": by_function(F.relu_), "leaky_relu_": by_function(F.leaky_relu_, 0.5),
    "clamp_": by_function(torch.clamp_, 0, 0.5), "sigmoid_": by_function(torch.sigmoid_),
    "mul_": by_function(Tensor.mul_, 2.0), "alias": aliases, "list": lists, "dropout": drops_nothing,
}  # fmt: skip


@pytest.mark.parametrize("code", IN_PLACE.values(), ids=IN_PLACE)
def test_what_changes_in_place_is_seen(code: Code) -> None:
    model, x = trained(Net(code)), images(2, 2, 4)
    expected = output(model, x)
    result = quantize(model, x.clone())
    assert count(result.model, Int8Conv2d) >= 2
    # torch.export takes a dropout that drops nothing for a copy, which is found out.
    assert bool(result.notes) == (code is drops_nothing)
    assert distance(output(result.model, x), expected) < 0.03
    assert distance(output(convert_qat(prepare_qat(model, x.clone())).model, x), expected) < 0.03


def normalizes(m: Any, x: Tensor) -> Tensor:
    return m.c((x - torch.tensor([0.5, 0.4]).view(1, 2, 1, 1)) / 0.25)


def selects(m: Any, x: Tensor) -> Tensor:
    return m.d(m.c(x).index_select(1, torch.tensor([1, 0])))


def prelu(m: Any, x: Tensor) -> Tensor:
    return m.d(F.prelu(m.c(x), torch.full((1,), 0.1)))


@pytest.mark.parametrize("code", [normalizes, selects, prelu])
def test_tensors_made_in_forward(code: Code) -> None:
    model, x = trained(Net(code)), images(2, 2, 4)
    result = quantize(model, x)
    assert not result.notes and result.quantized
    expected = output(model, x)
    assert distance(output(result.model, x), expected) < 0.03
    assert distance(output(convert_qat(prepare_qat(model, x)).model, x), expected) < 0.03


READS: dict[str, Code] = {
    "tied": lambda m, x: m.b(m.c(x)) + F.conv2d(x, m.c.weight, m.c.bias),
    "statistic": lambda m, x: m.b(m.c(x)) * m.c.weight.abs().mean(),
    "type": lambda m, x: m.b(m.c(x.to(m.c.weight.dtype))),
    "a bias at all": lambda m, x: m.b(m.c(x)) * (1 if m.c.bias is not None else 2),
    "bias": lambda m, x: m.b(m.c(x)) + m.c.bias.view(1, -1, 1, 1),
    "norm": lambda m, x: m.b(m.c(x)) + m.b.running_mean.view(1, -1, 1, 1),
    "linear": lambda m, x: m.l(x.mean((2, 3))) @ m.l.weight,
}


@pytest.mark.parametrize("code", READS.values(), ids=READS)
def test_parameters_read_elsewhere_stay_what_they_are(code: Code) -> None:
    model, x = trained(Net(code)), images(2, 2, 4)
    result = quantize(model, x)
    assert result.quantized and not result.notes
    assert distance(output(result.model, x), output(model, x)) < 0.03


LINEAR_READS: dict[str, Code] = {
    "type": lambda m, x: m.l(x.to(m.l.weight.dtype)),
    "tied": lambda m, x: m.l(x) @ m.l.weight.to(x.dtype),
    "statistic": lambda m, x: m.l(x) * m.l.weight.float().abs().mean(),
    "bias": lambda m, x: m.l(x) + (m.l.bias if m.l.bias is not None else 0),
    "first parameter": lambda m, x: m.l(x.to(next(m.l.parameters()).dtype)),
}


@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
@pytest.mark.parametrize("code", LINEAR_READS.values(), ids=LINEAR_READS)
def test_a_swapped_layer_shows_its_floats(code: Code, mode: str) -> None:
    for dtype in (torch.float32, torch.float64):
        model = trained(Net(code, 8), dtype)
        x = images(8, 4, 1, dtype).flatten(1)
        result = quantize(model, mode=mode)
        got, expected = output(result.model, x), output(model, x)
        assert count(result.model, Int8Linear) == 1
        assert got.dtype is expected.dtype and distance(got, expected) < 0.02
        assert result.model.half()(x.half()).dtype is torch.float16
        assert all(p.dtype is dtype for p in model.parameters()), "the model itself changed"


class Typed(nn.Module):
    """Linear layers alone, in code that asks the first parameter for its type, as model hubs' does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 64, bias=False), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = next(self.parameters())
        return self.b(self.a(x.to(first.dtype, copy=True).to(first.device)).relu())


@pytest.mark.parametrize("mode", ["dynamic", "weight_only"])
def test_the_models_parameters_look_like_the_float_ones(mode: str) -> None:
    model, x = trained(Typed()), images(8, 4, 1).flatten(1)
    result = quantize(model, mode=mode)
    assert distance(output(result.model, x), output(model, x)) < 0.03
    weights = {name: p for name, p in model.named_parameters() if name.endswith("weight")}
    for made in (result.model, copy.deepcopy(result.model), pickle.loads(pickle.dumps(result.model))):
        shown = dict(made.named_parameters())
        assert {n: (p.shape, p.dtype) for n, p in shown.items()} == {n: (p.shape, p.dtype) for n, p in weights.items()}
        assert all(p.untyped_storage().nbytes() == 4 and p.isnan().all() for p in shown.values()), "no floats are kept"
        assert torch.equal(output(made, x), output(result.model, x))
        assert made.state_dict()["a.weight"].dtype is torch.int8
    assert result.int8_bytes < result.float_bytes / 2, "what is shown takes no memory"
    half = result.model.half()
    assert next(half.parameters()).dtype is torch.float16 and output(half, x).dtype is torch.float16
    assert next(half.to("meta").parameters()).device.type == "meta"


# The layer, its arguments, and how many of its products are INT8: of those that its code makes, and of its modules.
ATTENTION: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), 3, 4, 0),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, 4, 2),
    "decoder": (lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2, 7, 2),
}


@pytest.mark.parametrize(("make", "arguments", "products", "modules"), ATTENTION.values(), ids=ATTENTION)
def test_attention(make: Callable[[], nn.Module], arguments: int, products: int, modules: int) -> None:
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(2, 5, 8)
    args = (x,) * arguments
    expected = model(*args)
    for mode in ("static", "dynamic", "weight_only"):
        result = quantize(model, [args] if mode == "static" else None, mode=mode)
        assert len(result.quantized) == (products if mode == "static" else modules), result
        with torch.no_grad():
            got = result.model(*args)
        for a, b in zip(*((o if isinstance(o, tuple) else (o,)) for o in (got, expected)), strict=True):
            assert distance(a, b) < 0.06
        if mode != "static":
            reasons = {line.reason for line in result.kept}
            assert reasons == {"torch.nn.MultiheadAttention multiplies by its weight itself"}


def drops_paths(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    if m.training:
        y = y * y.new_empty(y.shape[0], 1, 1, 1).bernoulli_(0.5) / 0.5
    return m.d(y)


DROPS: dict[str, Code] = {
    "dropout2d": lambda m, x: m.d(F.dropout2d(m.c(x), 0.5, m.training)),
    "alpha": lambda m, x: m.d(F.alpha_dropout(m.c(x), 0.5, m.training)),
    "torch": lambda m, x: m.d(torch.dropout(m.c(x), 0.5, m.training)),
    "paths": drops_paths,
}


@pytest.mark.parametrize("code", DROPS.values(), ids=DROPS)
def test_what_training_does_ends_with_it(code: Code) -> None:
    model, x = trained(Net(code)), images(2, 8, 6)
    expected = output(model, x)
    prepared = prepare_qat(model.train(), x)
    assert not torch.equal(prepared(x), prepared(x)), "it drops nothing in training"
    whole = convert_qat(prepared.eval())
    assert not whole.notes
    result = whole.model
    assert torch.equal(output(result, x), output(result, x))
    assert distance(output(result, x), expected) < 0.03


@pytest.mark.parametrize("divisor", [1, -4, 3])
def test_a_pool_that_sums_stays_in_float(divisor: int) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d(2, divisor_override=divisor), nn.Conv2d(3, 3, 1)))
    x = images()
    result = quantize(model, x)
    close(result, model, x)
    reason = f"its divisor {divisor} makes sums, which leave the range of what is summed"
    assert [(line.names, line.reason) for line in result.kept] == [(("1",), reason)]
    model[1].divisor_override = 5
    assert count(quantize(model, x).model, Int8AvgPool2d) == 1


CODES: dict[str, Code] = {
    "input": lambda m, x: m.c(x) + m.d(F.max_pool2d(x, 3, 1, 1)),
    "method": lambda m, x: m.c(x) + m.d(x.relu()),
    "sum": lambda m, x: (lambda z: m.c(z) + m.d(F.max_pool2d(z, 3, 1, 1)))(torch.cat([x, x], 1)[:, :2]),
    "pool first": lambda m, x: m.d(F.max_pool2d(x, 3, 1, 1)) + m.c(x),
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_value_for_layers_and_for_codes(code: Code) -> None:
    """It is quantized once; pool and ReLU read the same code as the layer beside them."""
    model, x = trained(Net(code)), images(2, 2, 6)
    result = quantize(model, x)
    assert count(result.model, Quantize) == 1 and count(result.model, Int8MaxPool2d) + ("relu" in str(result.model)) > 0
    assert distance(output(result.model, x), output(model, x)) < 0.03


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.conv(x)


def test_the_model_itself_does_not_change() -> None:
    x = images(2)
    model = nn.Sequential(Counter(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.ConvTranspose2d(2, 2, 2)).eval()
    model[1].train()
    before = copy.deepcopy(model.state_dict())
    quantize(model, [x, x])
    prepare_qat(model, x)(x)
    quantize(nn.Sequential(nn.Flatten(), nn.Linear(288, 2)).eval(), mode="dynamic").model.half()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
