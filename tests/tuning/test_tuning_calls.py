"""The calls that a model makes: every operator's are found, and repeated as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cnnkernels
from cnnkernels import functional as F
from cnnkernels.operators import OPERATORS
from cnnkernels.ops import conv, conv_transpose
from cnnkernels.records.choice import Choice, key_of
from cnnkernels.tuning.calls import find, tensors_of
from cnnkernels.tuning.candidates import geometry_of


class Everything(torch.nn.Module):
    """Calls every operator once."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.randn(1, 2, 6, 6, device=device))
        self.device = device

    def forward(self, scale: float) -> list[Any]:
        x, device = self.x, self.device
        row = x[:, :, 0]
        filters = torch.ones(2, 2, 3, 3, device=device)
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        q, _ = F.quantize_per_tensor(x.detach(), scale, 3)
        weight = torch.ones(2, 2, 3, 3, dtype=torch.int8, device=device)
        matrix = torch.ones(8, 8, dtype=torch.int8, device=device)
        return [
            F.conv2d(x, filters, activation="relu", residual=torch.ones(1, 2, 4, 4, device=device)),
            F.conv1d(row, filters[:, :, 0], padding="causal"),
            F.depthwise_conv2d(x, filters[:, :1]),
            F.depthwise_separable_conv2d(x, filters[:, :1], filters[:, :, :1, :1], pointwise_activation="relu"),
            F.conv_transpose2d(x, filters, stride=2, output_padding=1, scale=torch.ones(2, device=device)),
            F.conv_transpose1d(row, filters[:, :, 0]),
            pooled,
            F.max_pool1d(row, 2),
            F.max_unpool2d(pooled, indices, 2),
            F.avg_pool1d(row, 2),
            F.adaptive_avg_pool1d(row, 2),
            F.avg_pool2d(x, 2, divisor_override=3),
            F.adaptive_avg_pool2d(x, 2),
            F.batch_norm(x, None, None, training=True, activation="relu"),
            F.int8_gemm(matrix, matrix, scale_a=scale),
            F.int8_conv2d(q, weight, input_scale=scale, weight_scale=0.5),
            F.int8_weight_only_linear(torch.ones(2, 8, device=device), matrix, weight_scale=scale),
            F.int8_max_pool2d(q, 2),
            F.int8_avg_pool2d(q, 2, zero_point=3),
            F.dequantize(q, scale, 3),
        ]


def test_every_operator_is_found_and_repeated(device: str) -> None:
    model = Everything(device)
    with cnnkernels.use_backend("reference"):
        expected = model(0.1)
    found = find(model, (0.1,), training=True)
    assert {one.operator for one in found} == set(OPERATORS)
    with torch.no_grad(), cnnkernels.use_backend("reference"):
        again = {one.operator: tensors_of(one.again(*one.arguments))[0] for one in found}
    operators = [name for name in OPERATORS if name != "quantize"]
    for operator, output in zip(operators, expected, strict=True):
        assert torch.equal(again[operator], output), operator
    other = find(model, (0.2,), training=True)
    assert [one.name for one in other] == [one.name for one in found]  # a scale's value is no part of a call
    for one in found:
        choice = Choice(one.operator, one.key, "cuda", None, {})
        assert Choice.decoded(choice.encoded()) == choice


def test_types_layouts_and_settings_are_part_of_a_call(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 3, 4, 4, device=device)
    keys = [key_of((value, 1)) for value in (x, x[:1], x.double(), x.contiguous(memory_format=torch.channels_last))]
    keys += [key_of((x, 2)), key_of((x, (1, 1)))]
    with torch.autocast(device, torch.bfloat16):
        keys.append(key_of((x, 1)))
    with torch.backends.cudnn.flags(allow_tf32=not keys[0][1]):
        keys.append(key_of((x, 1)))
    assert len(set(keys)) == len(keys)
    assert key_of((x, [1, 1])) == key_of((x, (1, 1))) and key_of((x, 0.5)) == key_of((x, 0.25))


@pytest.mark.parametrize(
    "layer",
    [
        cnnkernels.nn.Conv2d(4, 6, 3, stride=(1, 2), padding=(0, 1), groups=2),
        cnnkernels.nn.Conv2d(4, 6, 2, padding="same"),
        cnnkernels.nn.Conv1d(4, 6, 3, dilation=2),
        cnnkernels.nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2),
        cnnkernels.nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1),
    ],
    ids=lambda layer: str(layer),
)
@pytest.mark.parametrize("batched", [True, False])
def test_the_geometry_of_a_call_is_its_kernels(
    layer: torch.nn.Module, batched: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (4, 7) if isinstance(layer, torch.nn.Conv1d | torch.nn.ConvTranspose1d) else (4, 5, 7)
    x = torch.zeros((2, *size) if batched else size, device=device)
    (one,) = find(layer.to(device), x, training=False)
    seen = []
    for module in (conv, conv_transpose):
        look_up = module.kernel_of

        def noted(*arguments: Any, look_up: Any = look_up) -> Any:
            seen.append(arguments[2])
            return look_up(*arguments)

        monkeypatch.setattr(module, "kernel_of", noted)
    with torch.no_grad(), cnnkernels.use_backend("cuda"):
        layer(x)
    assert [geometry_of(one)] == seen


def test_a_gradients_strides_are_its_own(device: str) -> None:
    """The layer after it transposes: its gradient comes back with these strides."""

    class Transposed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = cnnkernels.nn.Conv2d(2, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).transpose(2, 3).contiguous()

    (one,) = find(Transposed().to(device), torch.zeros(1, 2, 3, 4, device=device), training=True)
    assert one.layers == ["conv"] and one.grad_stride == (24, 12, 1, 3)
