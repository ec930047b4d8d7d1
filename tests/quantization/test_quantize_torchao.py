"""torchao's prepare_pt2e and convert_pt2e with our quantizer, lowered to our layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cnnkernels.nn import Dequantize, Int8Conv2d, Int8Linear, Quantize
from helpers.models.quantize import conv_norm, count, distance, images, output, trained

pytest.importorskip("torchao.quantization.pt2e", reason="adapts it")

from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from cnnkernels.quantization.torchao import Int8Quantizer, lower

pytestmark = [
    pytest.mark.usefixtures("on_the_reference"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Network(nn.Module):
    """Norms, a sum that stays in float, strides and groups, a layer whose output nobody rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv_norm(3, 8, stride=2), conv_norm(8, 8, groups=4)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + self.block(x)).mean((2, 3)))


def converted(model: nn.Module, x: Tensor) -> torch.fx.GraphModule:
    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), Int8Quantizer())
    prepared(x)
    return convert_pt2e(prepared)


def test_what_torchao_converted_runs_on_our_layers() -> None:
    model, x = trained(Network()), images()
    simulated = converted(model, x)
    expected = output(simulated, x)
    lowered = lower(simulated)
    assert (count(lowered, Int8Conv2d), count(lowered, Int8Linear)) == (2, 1)
    assert count(lowered, Quantize) == 2 and count(lowered, Dequantize) == 2
    assert not [node for node in lowered.graph.nodes if "quantized_decomposed" in str(node.target)]
    got = output(lowered, x)
    assert distance(got, expected) < 0.1 * distance(expected, output(model, x)), "a code on a border at most"
    assert distance(got, output(model, x)) < 0.03


def test_the_numbers_are_torchaos() -> None:
    model, x = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))), images()
    first, second = (m for m in lower(converted(model, x)).modules() if isinstance(m, Int8Conv2d))
    assert first.activation == "relu" and second.out_scale is None
    assert (first.out_scale, first.out_zero_point) == (second.input_scale, second.input_zero_point)
    assert second.input_zero_point == -128, "what a ReLU leaves begins at the lowest code"
    torch.testing.assert_close(first.weight_scale, model[0].weight.abs().amax((1, 2, 3)) / 127)
    assert torch.equal(first.weight_sum, first.weight.flatten(1).sum(1).int())


def test_what_is_nothing_of_the_kind() -> None:
    with pytest.raises(TypeError, match="argument 'model' must be what convert_pt2e returned, not Linear"):
        lower(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="with something quantized, but nothing is"):
        lower(torch.fx.symbolic_trace(nn.Linear(2, 2)))
