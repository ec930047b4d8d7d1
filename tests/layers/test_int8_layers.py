"""INT8 layers: made of trained ones, moved, copied, saved; and who looks on at them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels import nn, use_backend
from cnnkernels.testing.cases import ConvCase
from helpers.int8 import columns_last, convolution, floats, formula, integers, product


def linear(dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(20, 12).to(dtype).eval()


def conv(**options: Any) -> torch.nn.Conv2d:
    torch.manual_seed(0)
    return torch.nn.Conv2d(8, 12, 3, **({"stride": 2, "padding": 1, "groups": 2} | options)).eval()


IMAGE = floats((2, 8, 7, 9), 2, -3, 3)
LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], Tensor]] = {
    "static linear": (
        lambda: nn.Int8Linear.from_float(linear(), input_scale=0.03, activation="relu"),
        floats((3, 20), 1),
    ),
    "dynamic linear": (lambda: nn.Int8Linear.from_float(linear(), mode="dynamic"), floats((2, 3, 20), 1)),
    "weight-only linear": (lambda: nn.Int8Linear.from_float(linear(), mode="weight_only"), floats((3, 20), 1)),
    "conv": (lambda: nn.Int8Conv2d.from_float(conv(), input_scale=0.03, input_zero_point=4), IMAGE),
    "conv to uint8": (
        lambda: nn.Int8Conv2d.from_float(
            conv(bias=False), input_scale=0.03, activation="leaky_relu", negative_slope=0.2, out_scale=0.02,
            out_zero_point=99, out_dtype=torch.uint8,
        ),
        IMAGE,
    ),
    "max pooling": (lambda: nn.Int8MaxPool2d(3, 2, 1), integers((2, 4, 7, 6), 1)),
    "average pooling": (lambda: nn.Int8AvgPool2d(3, 2, 1, zero_point=7), integers((2, 4, 7, 6), 1)),
    "mean": (lambda: nn.Int8AdaptiveAvgPool2d(-9), integers((2, 4, 7, 6), 1)),
    "quantize": (lambda: nn.Quantize(0.02, 3), IMAGE),
    "dequantize": (lambda: nn.Dequantize(0.02, 3, torch.bfloat16), integers((2, 3), 1)),
}  # fmt: skip
layers = pytest.mark.parametrize("name", LAYERS)


def made(name: str, device: str) -> tuple[torch.nn.Module, Tensor]:
    make, input = LAYERS[name]
    return make().to(device), input.to(device)


def saved_and_loaded(layer: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    if isinstance(layer, nn.Int8Linear):
        empty: Any = nn.Int8Linear(20, 12)
    elif isinstance(layer, nn.Int8Conv2d):
        empty = nn.Int8Conv2d(8, 12, 3, 2, 1, groups=2, bias=layer.bias is not None)
    elif isinstance(layer, nn.Int8AdaptiveAvgPool2d):
        empty = nn.Int8AdaptiveAvgPool2d()
    else:
        empty = type(layer)(3, 2, 1) if "Pool" in type(layer).__name__ else type(layer)(1.0)
    empty.load_state_dict(torch.load(file, weights_only=True))
    return empty.to(next(iter(layer.buffers()), torch.empty(0)).device)


@layers
@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), saved_and_loaded],
    ids=["deepcopy", "pickle", "state_dict"],
)
def test_copies_compute_the_same(device: str, name: str, clone: Callable[[Any], Any]) -> None:
    layer, x = made(name, device)
    other = clone(layer)
    with use_backend("reference"), torch.no_grad():
        assert torch.equal(other(x), layer(x))
    assert repr(other) == repr(layer)
    for key, value in layer.state_dict().items():
        mine = other.state_dict()[key]
        assert torch.equal(mine, value) and mine.dtype == value.dtype if isinstance(value, Tensor) else mine == value
    tensors = dict(layer.named_buffers())
    assert all(other.get_buffer(key).data_ptr() != tensor.data_ptr() for key, tensor in tensors.items())
    if "weight" in tensors and tensors["weight"].dim() == 4:
        assert other.weight.is_contiguous(memory_format=torch.channels_last)


@layers
@pytest.mark.parametrize(
    "move",
    [
        lambda layer: layer.half(),
        lambda layer: layer.to(torch.float64),
        lambda layer: layer.bfloat16().float(),
        lambda layer: layer.to("meta", torch.float16),
    ],
    ids=["half", "float64", "bfloat16 and back", "meta"],
)
def test_no_conversion_touches_integers_or_scales(device: str, name: str, move: Callable[[Any], Any]) -> None:
    layer, _ = made(name, device)
    before = {key: value.clone() for key, value in layer.named_buffers()}
    after = dict(move(layer).named_buffers())
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key].dtype == value.dtype
        assert after[key].is_meta or torch.equal(after[key], value)


def test_the_state_is_small_and_int8() -> None:
    state = nn.Int8Conv2d.from_float(conv(), input_scale=0.03).state_dict()
    dtypes = {key: value.dtype for key, value in state.items() if isinstance(value, Tensor)}
    assert dtypes == {
        "weight": torch.int8, "weight_scale": torch.float32, "weight_sum": torch.int32, "bias": torch.float32,
        "scales": torch.float64, "zero_points": torch.int32,
    }  # fmt: skip
    assert not list(nn.Int8Linear(3, 4).parameters())


def test_repr() -> None:
    assert repr(LAYERS["static linear"][0]()) == (
        "Int8Linear(in_features=20, out_features=12, mode=static, bias=True, input_scale=0.03, activation=relu)"
    )
    assert repr(LAYERS["conv to uint8"][0]()) == (
        "Int8Conv2d(8, 12, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=2, bias=False, input_scale=0.03, "
        "out_scale=0.02, out_zero_point=99, out_dtype=torch.uint8, activation=leaky_relu, negative_slope=0.2)"
    )
    layer = nn.Quantize(0.5)
    layer.backend = "triton"
    assert repr(layer) == "Quantize(scale=0.5, zero_point=0, dtype=torch.int8, backend=triton)"


def weights(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """float32 weights as the rule has them in integers, and the scales: the largest magnitude of a row is 127."""
    f = np.float32
    rows = layer.weight.detach().float().flatten(1).numpy()
    scale = np.abs(rows).max(1, keepdims=True) / f(127)
    return np.rint(rows * (f(1) / scale)).astype(np.int8), scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_a_static_linear_layer_is_the_formula(backend: str, device: str, dtype: torch.dtype) -> None:
    source = linear(dtype)
    given = {"input_scale": 0.02, "input_zero_point": -3, "out_scale": 0.05, "out_zero_point": 7}
    layer = nn.Int8Linear.from_float(source, activation="relu", **given).to(device)
    q, scale = weights(source)
    assert np.array_equal(layer.weight.cpu().numpy(), q)
    assert np.array_equal(layer.weight_scale.cpu().numpy(), scale[:, 0])
    assert np.array_equal(layer.weight_sum.cpu().numpy(), q.astype(np.int64).sum(1))
    x = integers((4, 20), 1)
    with use_backend(backend):
        y = layer(x.to(device))
    expected = formula(
        product(x, torch.from_numpy(q).t(), -3), scale_a=0.02, scale_b=torch.from_numpy(scale),
        bias=source.bias.detach().float(), activation="relu", out_scale=0.05, out_zero_point=7, out_dtype=torch.int8,
    )  # fmt: skip
    assert torch.equal(y.cpu(), expected)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
def test_a_convolution_is_the_formula(backend: str, device: str, padding_mode: str) -> None:
    source = conv(padding_mode=padding_mode)
    layer = nn.Int8Conv2d.from_float(source, input_scale=0.02, input_zero_point=5, out_dtype=torch.float16).to(device)
    q, scale = weights(source)
    x = integers((2, 8, 7, 9), 1)
    with use_backend(backend):
        y = layer(x.to(device))
    case = ConvCase("", 2, 8, 7, 9, 12, 3, 3, (2, 2), (1, 1, 1, 1), groups=2)
    if padding_mode != "zeros":
        mode = {"reflect": "reflect", "circular": "wrap"}[padding_mode]
        x = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode=mode))
        case = ConvCase("", 2, 8, 9, 11, 12, 3, 3, (2, 2), groups=2)
    sums = columns_last(convolution(case, x, torch.from_numpy(q).view(source.weight.shape), 5))
    expected = formula(
        sums, scale_a=0.02, scale_b=torch.from_numpy(scale), bias=source.bias.detach(), out_dtype=torch.float16
    )
    n, k, p, r = case.output_shape
    assert torch.equal(y.cpu(), expected.view(n, p, r, k).movedim(-1, 1))


def test_layers_stay_close_to_what_they_are_made_of(device: str) -> None:
    """An 8-bit quantizer's noise: its step over sqrt(12), for input and weight, over the sum."""
    for name in ("static linear", "dynamic linear", "weight-only linear", "conv"):
        layer, x = made(name, device)
        source = (conv() if "conv" in name else linear()).to(device)
        with use_backend("reference"), torch.no_grad():
            expected = source(x).relu() if name == "static linear" else source(x)
            noise = (layer(x) - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert 0 < noise < 0.02, name


def test_the_output_follows_a_floating_input(device: str) -> None:
    with use_backend("reference"), torch.no_grad():
        for name in ("static linear", "dynamic linear", "conv"):
            layer, x = made(name, device)
            for dtype in (torch.float16, torch.bfloat16, torch.float32):
                assert layer.half()(x.to(dtype)).dtype is dtype
        layer, x = made("weight-only linear", device)
        assert layer(x.bfloat16()).dtype is torch.bfloat16
        assert made("conv to uint8", device)[0](IMAGE.to(device).half()).dtype is torch.uint8


def test_a_residual_of_integers_has_the_layers_scale(backend: str, device: str) -> None:
    given = {"input_scale": 0.02, "residual_scale": 0.5, "residual_zero_point": 3}
    layer = nn.Int8Linear.from_float(linear(), **given).to(device)
    x, residual = integers((4, 20), 1).to(device), integers((4, 12), 2).to(device)
    with use_backend(backend):
        right = layer(x, (residual.float() - 3) * 0.5)
        assert torch.equal(layer(x, residual), right)
        assert not torch.equal(layer(x), right)


def test_weight_only_takes_a_residual_of_integers_too(device: str) -> None:
    layer, x = made("weight-only linear", device)
    residual = integers((3, 12), 2).to(device)
    with pytest.raises(TypeError, match="argument 'residual_scale' must be float for a residual"):
        layer(x, residual)
    layer.residual_scale, layer.residual_zero_point = 0.5, 3
    with use_backend("reference"):
        assert torch.equal(layer(x, residual), layer(x, (residual.float() - 3) * 0.5))


def test_numbers_of_other_kinds_become_pythons(device: str) -> None:
    """So that a state_dict loads with weights_only."""
    layer = nn.Int8Linear(3, 4, input_scale=np.float32(0.5), input_zero_point=np.int64(3), out_scale=torch.tensor(2.0))
    other = saved_and_loaded(nn.Int8Linear(20, 12, input_scale=np.float64(0.5), input_zero_point=np.int32(3)))
    assert (layer.input_scale, layer.input_zero_point, layer.out_scale) == (0.5, 3, 2.0)
    assert type(layer.input_scale) is type(layer.out_scale) is float and type(layer.input_zero_point) is int
    assert other.input_zero_point == 3


def test_pooling_is_pytorchs_of_what_the_integers_stand_for(backend: str, device: str) -> None:
    """Sums of quarters are exact, and rounding a mean's numerator over 4 is half to even."""
    x = integers((2, 5, 6, 8), 1).to(device)
    with use_backend(backend):
        largest, mean = nn.Int8MaxPool2d(2)(x), nn.Int8AvgPool2d(2, zero_point=3)(x)
        whole = nn.Int8AdaptiveAvgPool2d(3)(x[:, :, :4, :4])
    assert torch.equal(largest, torch.nn.functional.max_pool2d(x.float(), 2).to(torch.int8))
    assert torch.equal(mean, (torch.nn.functional.avg_pool2d(x.float() - 3, 2).round() + 3).to(torch.int8))
    expected = ((x[:, :, :4, :4].float() - 3).mean((2, 3), keepdim=True).round() + 3).to(torch.int8)
    assert torch.equal(whole, expected)
    with pytest.raises(ValueError, match="got return_indices=True"):
        nn.Int8MaxPool2d(2, return_indices=True)


def test_what_is_folded_into_a_convolution(device: str) -> None:
    """A batch norm and an activation that Conv2dAct holds are kept; the next layer need not know."""
    norm = torch.nn.BatchNorm2d(12).eval()
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    norm.running_mean.uniform_(-1, 1)
    source = nn.Conv2dAct.fold(conv(), norm, "leaky_relu", 0.3)
    layer = nn.Int8Conv2d.from_float(source, input_scale=3 / 127).to(device)
    assert layer.activation == "leaky_relu" and layer.negative_slope == 0.3
    with use_backend("reference"), torch.no_grad():
        expected = torch.nn.functional.leaky_relu(norm(conv()(IMAGE)), 0.3)
        noise = (layer(IMAGE.to(device)).cpu() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert noise < 0.02
    other = nn.Int8Conv2d.from_float(source, input_scale=1.0, activation="none")
    assert other.activation == "none"


def test_weight_scales_may_be_given() -> None:
    scale = torch.full((12,), 0.01)
    layer = nn.Int8Linear.from_float(linear(), mode="dynamic", weight_scale=scale)
    assert torch.equal(layer.weight_scale, scale)
    assert torch.equal(layer.weight.float(), (linear().weight / 0.01).round().clamp(-128, 127))


def test_a_row_of_zeros_or_of_next_to_nothing_has_a_scale() -> None:
    source = linear()
    with torch.no_grad():
        source.weight[3] = 0
        source.weight[4] = 3 * 2.0**-126
    layer = nn.Int8Linear.from_float(source, mode="dynamic")
    assert layer.weight_scale[3:5].tolist() == [1, 2.0**-126]
    assert not layer.weight[3].any() and (layer.weight[4] == 3).all()
    assert layer(torch.ones(1, 20))[0, 3] == layer.bias[3]


def test_a_layer_may_pin_its_backend(recorded, device: str) -> None:
    layer, x = made("conv", device)
    layer.backend = "triton"
    with use_backend("reference"):
        layer(x.to(torch.int8))
    assert [(call.backend, call.name) for call in recorded] == [("triton", "int8_conv")]


def test_a_layer_knows_its_weights_sums(recorded, device: str) -> None:
    """They reach the kernel, which then need not read the weights twice."""
    for name in ("static linear", "conv"):
        layer, x = made(name, device)
        recorded.clear()
        with use_backend("cuda"):
            layer(x.to(torch.int8))
        assert torch.equal(recorded[0].arguments[-1].sums_b, layer.weight_sum)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a layer of another kind": (lambda: nn.Int8Linear.from_float(conv(), input_scale=1.0), TypeError, "but got Conv2d"),
    "a convolution of another kind": (
        lambda: nn.Int8Conv2d.from_float(torch.nn.ConvTranspose2d(1, 1, 1), input_scale=1.0),
        TypeError,
        "but got ConvTranspose2d",
    ),
    "no input_scale": (lambda: nn.Int8Linear.from_float(linear()), ValueError, "mode='static' needs input_scale"),
    "mode": (lambda: nn.Int8Linear(3, 4, mode="fast"), ValueError, "but got mode='fast'"),
    "dynamic with a scale": (
        lambda: nn.Int8Linear(3, 4, mode="dynamic", input_scale=1.0), ValueError, "input_scale=1.0 does not go with"
    ),
    "weight_only with integers out": (
        lambda: nn.Int8Linear(3, 4, mode="weight_only", out_scale=1.0), ValueError, "out_scale=1.0 does not go with"
    ),
    "input_scale": (lambda: nn.Int8Linear(3, 4, input_scale=-1.0), ValueError, "input_scale must be positive"),
    "out_scale": (lambda: nn.Int8Conv2d(3, 4, 3, out_scale=0.0), ValueError, "out_scale must be positive"),
    "out_zero_point": (lambda: nn.Int8Linear(3, 4, out_zero_point=1), ValueError, "out_zero_point=1 needs out_scale"),
    "out_zero_point of int8": (
        lambda: nn.Int8Linear(3, 4, out_scale=1.0, out_zero_point=128), ValueError, "out_zero_point=128"
    ),
    "input_zero_point": (lambda: nn.Int8Conv2d(3, 4, 3, input_zero_point=256), ValueError, "input_zero_point=256"),
    "out_dtype": (lambda: nn.Int8Linear(3, 4, out_dtype=torch.int8), ValueError, "out_dtype=torch.int8 does not go"),
    "activation": (lambda: nn.Int8Linear(3, 4, activation="swish"), ValueError, "'swish'"),
    "another number": (lambda: nn.Int8Linear(3, 4, scale=1.0), TypeError, "scale"),
    "conv without input_scale": (lambda: nn.Int8Conv2d(3, 4, 3, input_scale=None), ValueError, "input_scale"),
    "weight_scale": (
        lambda: nn.Int8Linear.from_float(linear(), mode="dynamic", weight_scale=-torch.ones(12)),
        ValueError,
        "every element of scale must be positive and finite",
    ),
    "quantize's scale": (lambda: nn.Quantize(float("nan")), ValueError, "Quantize: scale must be positive"),
    "quantize's zero point": (lambda: nn.Quantize(1.0, 200), ValueError, "zero_point=200"),
    "quantize's dtype": (lambda: nn.Quantize(1.0, 0, torch.float16), ValueError, "dtype=torch.float16"),
    "dequantize's dtype": (lambda: nn.Dequantize(1.0, 0, torch.int8), ValueError, "dtype=torch.int8"),
    "dynamic of integers": (
        lambda: nn.Int8Linear(3, 4, mode="dynamic")(torch.ones(2, 3, dtype=torch.int8)),
        RuntimeError,
        "needs a floating input, but got torch.int8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), WRONG.values(), ids=[name.replace(" ", "_") for name in WRONG])
def test_errors(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    source = linear()
    with torch.no_grad():
        source.weight[2, 3] = value
    with pytest.raises(ValueError, match=f"expected finite weights, but got {value}"):
        nn.Int8Linear.from_float(source, mode="dynamic")


def test_an_input_that_wants_a_gradient_is_refused_but_by_weight_only(device: str) -> None:
    x = torch.ones(3, 20, device=device, requires_grad=True)
    for name in ("static linear", "dynamic linear"):
        with use_backend("reference"), pytest.raises(RuntimeError, match="input requires grad"):
            made(name, device)[0](x)
    layer, _ = made("weight-only linear", device)
    (grad,) = torch.autograd.grad(layer(x).sum(), x)
    weight = layer.weight.float() * layer.weight_scale[:, None]
    torch.testing.assert_close(grad, weight.sum(0).expand(3, 20))
