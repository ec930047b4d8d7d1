"""quantize and prepare_qat: what values go through as codes between the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import convert_qat, prepare_qat, quantize
from cnnkernels.nn import Dequantize, Int8AdaptiveAvgPool2d, Quantize
from cnnkernels.quantization.tables import Int8Activation
from helpers.models.quantize import Net, close, conv_norm, count, images, trained

pytestmark = pytest.mark.usefixtures("on_the_reference")
Code = Callable[[Any, Tensor], Tensor]


def shuffled(m: Any, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return m.d(m.c(x).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def split(m: Any, x: Tensor) -> Tensor:
    a, b = m.c(x).chunk(2, 1)
    return m.d(torch.cat([b, F.max_pool2d(a, 3, 1, 1)], 1))


def one_part_in_float(m: Any, x: Tensor) -> Tensor:
    a, b = m.c(x).split(2, 1)
    return m.d(torch.cat([b, b], 1)) + torch.sigmoid(a).mean()


def other_order(m: Any, x: Tensor) -> Tensor:
    return m.l(m.c(x).permute(0, 2, 3, 1).flatten(1, 2)[:, ::2][:, :4].unbind(1)[3])


def twice(m: Any, x: Tensor) -> Tensor:
    """Two concatenations that have a value in common have one code."""
    y = m.c(x)
    return m.d(torch.cat([y[:, :2], m.d(x)[:, 2:]], 1)) + m.c(torch.cat([y[:, 2:], F.relu(y[:, :2])], 1))


CODES: dict[str, Code] = {
    "concatenation": lambda m, x: m.d(torch.cat([m.c(x)[:, :3], m.d(x)[:, 3:]], 1)),
    "with a value made in float": lambda m, x: m.d(torch.cat([m.c(x)[:, :3], x.tanh()[:, 3:]], 1)),
    "shuffle": shuffled,
    "split": split,
    "one part in float": one_part_in_float,
    "two concatenations": twice,
    "channels last": other_order,
    "padding": lambda m, x: m.d(F.pad(m.c(x), [1, 0, 2, 1])),
    "an activation alone": lambda m, x: m.d(F.silu(F.max_pool2d(m.c(x), 2))),
    "one of several readers": lambda m, x: m.d(F.hardswish(y := m.c(x))) + m.c(y),
    "mean": lambda m, x: m.d(m.c(x).relu().mean((2, 3), keepdim=True)),
}  # fmt: skip
# Quantize and Dequantize in the result: of the input, and around what is float.
FLOATS = {"with a value made in float": (2, 0), "one part in float": (1, 1)}


@pytest.mark.parametrize("name", CODES)
def test_codes_go_from_layer_to_layer(name: str) -> None:
    model, x = trained(Net(CODES[name], 4)), images(4)
    result = quantize(model, x)
    assert not result.notes and (count(result.model, Quantize), count(result.model, Dequantize)) == FLOATS.get(
        name, (1, 0)
    ), result.model.graph
    close(result, model, x, 25)
    prepared = prepare_qat(model.train(), x)
    prepared(2 * x)
    converted = convert_qat(prepared)
    assert count(converted.model, Quantize) == count(result.model, Quantize)
    with torch.no_grad():
        assert torch.equal(converted.model(x), prepared.eval()(x))


def test_what_is_concatenated_has_the_range_of_all() -> None:
    model, x = trained(Net(lambda m, x: m.d(torch.cat([m.c(x)[:, :3], 5 * x[:, 3:]], 1)), 4)), images(4)
    for result in (quantize(model, x), convert_qat(prepare_qat(model, x))):
        values = {value.names[0]: value for value in result.values}
        of_both = [value for name, value in values.items() if name not in ("x", "d")]
        assert len({value.code for value in of_both}) == 1 and len(of_both) == 2
        assert of_both[0].high == pytest.approx(max(5 * x[:, 3:].max().item(), model.c(x)[:, :].max().item()), rel=0.02)


def test_a_mean_is_a_pool_and_padding_is_the_zero_point() -> None:
    model, x = trained(Net(CODES["mean"], 4)), images(4)
    assert count(quantize(model, x).model, Int8AdaptiveAvgPool2d) == 1
    model = trained(Net(CODES["padding"], 4))
    result = quantize(model, x)
    [value] = [value for value in result.values if value.names == ("c",)]
    [pad] = [node for node in result.model.graph.nodes if "pad" in node.name]
    assert value.code is not None and pad.args[-1] == value.code.zero_point != 0


class Frozen(nn.Module):
    """A batch norm's numbers as buffers, as detectors' backbones have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels, generator=torch.Generator().manual_seed(3)) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            self.get_buffer(name).reshape(1, -1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class Standardized(nn.Conv2d):
    """Its filters are standardized whenever it runs, by a batch norm of filters."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


@pytest.mark.parametrize(
    "layers",
    [lambda: [nn.Conv2d(3, 6, 3, bias=False), Frozen(6)], lambda: [Standardized(3, 6, 3), nn.BatchNorm2d(6)]],
    ids=["frozen norm", "standardized filters"],
)
def test_numbers_that_are_computed_are_folded(layers: Callable[[], list[nn.Module]]) -> None:
    model, x = trained(nn.Sequential(*layers(), nn.ReLU(), conv_norm(6, 4))), images()
    result = quantize(model, x)
    assert [line.names[0] for line in result.quantized] == ["0 + 1 + 2", "3.0 + 3.1 + 3.2"] and not result.kept
    assert (count(result.model, Quantize), count(result.model, Dequantize)) == (1, 0)
    close(result, model, x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_table_gives_each_code_what_the_function_gives(dtype: torch.dtype, approximate: str) -> None:
    layer = Int8Activation(nn.GELU(approximate), (0.03, 17), (0.0015, 0), dtype)
    codes = torch.arange(-128, 128, dtype=torch.int8).view(2, 4, 4, 8).contiguous(memory_format=torch.channels_last)
    made = layer(codes)
    expected = Quantize(0.0015, 0)(nn.functional.gelu(Dequantize(0.03, 17, dtype)(codes), approximate=approximate))
    assert made.dtype is torch.int8 and torch.equal(made, expected) and made.unique().numel() > 64
    assert made.is_contiguous(memory_format=torch.channels_last)
    fresh = Int8Activation(nn.GELU(), (1.0, 0), (1.0, 0), dtype)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(codes), made) and fresh.out_scale == 0.0015
