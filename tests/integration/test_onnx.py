"""Export to ONNX: the graph of a replaced model is the original's, whichever backend is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import cnnkernels
from cnnkernels import functional, nn, use_backend


class Segmenter(torch.nn.Module):
    """Every layer that replace_layers knows, each kind of padding, groups, and indices that are used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(4, 8, (4, 3), padding="same"),
            torch.nn.ReLU(),
            torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            torch.nn.Conv2d(8, 8, 3, padding="valid", dilation=2, groups=2),
            torch.nn.Conv2d(8, 16, 3, stride=2, padding=(1, 0), groups=8, bias=False),
            torch.nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect"),
            torch.nn.Conv2d(8, 8, (2, 3), padding="same", padding_mode="circular"),
            torch.nn.Conv2d(8, 8, 3, padding=(2, 1), padding_mode="replicate"),
            torch.nn.MaxPool2d(3, 1, 1, ceil_mode=True),
            torch.nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=2),
        )
        self.pool = torch.nn.MaxPool2d(2, return_indices=True)
        self.unpool = torch.nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.body(x)
        values, indices = self.pool(x)
        return values, indices, self.unpool(values, indices, x.shape[-2:])


class Fused(torch.nn.Module):
    """Layers that torch.nn has not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pair = nn.DepthwiseSeparableConv2d(
            8, 6, 3, padding=1, depthwise_activation="relu", pointwise_activation="hardswish"
        )
        self.act = nn.Conv2dAct(6, 6, 3, padding="same", activation="silu", affine=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pair(x)
        return self.act(x, x)


class Apart(Fused):
    """What they are made of."""

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.pair.depthwise, self.pair.pointwise, self.act
        x = torch.conv2d(x, first.weight, first.bias, padding=1, groups=8).relu()
        x = torch.nn.functional.hardswish(torch.conv2d(x, second.weight, second.bias))
        y = torch.conv2d(x, last.weight, last.bias, padding="same") * last.scale[:, None, None]
        return torch.nn.functional.silu(y + last.shift[:, None, None] + x)


class Network(torch.nn.Module):
    def __init__(self, body: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> list[Tensor]:
        values, indices, image = self.body(x)
        return [values, indices, self.head(image)]


def original() -> Network:
    return Network(Segmenter(), Apart())


def ours() -> Network:
    return Network(cnnkernels.replace_layers(Segmenter(), backend="triton").model, Fused())


def exported(model: torch.nn.Module, x: Tensor) -> Any:
    return torch.onnx.export(model.eval(), (x,), dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},))


def nodes(program: Any) -> list[Any]:
    """Each node with its attributes, the names of its values, and the weights."""
    graph = program.model_proto.graph
    made = [(n.op_type, n.domain, list(n.input), list(n.output), sorted(map(str, n.attribute))) for n in graph.node]
    return [*made, *sorted((weight.name, weight.raw_data) for weight in graph.initializer)]


def test_the_graph_is_the_originals_and_runs_in_onnxruntime() -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs what was exported")
    torch.manual_seed(1)
    x = torch.randn(2, 4, 13, 12)
    with use_backend("cuda"):
        program = exported(ours(), x)
    assert nodes(program) == nodes(exported(original(), x))

    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    other = torch.randn(3, 4, 13, 12)
    found = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    for result, expected in zip(found, original()(other), strict=True):
        torch.testing.assert_close(torch.from_numpy(result), expected)


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.onnx.export says while it traces, without its translation."""
    monkeypatch.setattr("torch.onnx._internal.exporter._flags._is_onnx_exporting", True)


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_traced_for_onnx_is_pytorchs(exporting: None, strict: bool) -> None:
    """By both ways that torch.onnx.export tries."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), torch.nn.MaxPool2d(2))
    model.extend([torch.nn.AvgPool2d(2, 1), torch.nn.AdaptiveAvgPool2d(2), torch.nn.BatchNorm2d(3).eval()])
    x = torch.randn(2, 2, 6, 6)

    def targets(model: torch.nn.Module) -> list[str]:
        return [str(node.target) for node in torch.export.export(model, (x,), strict=strict).graph.nodes]

    with use_backend("cuda"):
        assert targets(cnnkernels.replace_layers(model).model) == targets(model)


def test_the_kernels_stay_outside_of_an_export(exporting: None, recorded) -> None:
    """A call that nobody traces runs where it was asked to, also while another thread exports."""
    with use_backend("cuda"):
        functional.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2))
    assert recorded


class Calls(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def integers() -> dict[str, tuple[torch.nn.Module, Tensor]]:
    x, weight = torch.ones(2, 4, 6, 6), torch.ones(3, 4, 2, 2, dtype=torch.int8)
    q, matrix, f = x.to(torch.int8), torch.ones(3, 6, dtype=torch.int8), functional
    return {
        "quantize": (Calls(lambda x: f.quantize_per_tensor(x, 0.1)), x),
        "dequantize": (Calls(lambda x: f.dequantize(x, 0.1)), q),
        "int8_max_pool2d": (Calls(lambda x: f.int8_max_pool2d(x, 2)), q),
        "int8_avg_pool2d": (Calls(lambda x: f.int8_adaptive_avg_pool2d(x, 1)), q),
        "int8_conv2d": (Calls(lambda x: f.int8_conv2d(x, weight, input_scale=0.1, weight_scale=0.1)), q),
        "int8_gemm": (Calls(lambda x: f.int8_linear(x, matrix, 0.1, 0.1)), q),
        "int8_weight_only_linear": (Calls(lambda x: f.int8_weight_only_linear(x, matrix, torch.ones(3))), x),
    }


REFUSED = "{}: INT8 functions of cnnkernels can not be exported to ONNX; layers of cnnkernels.nn can"


@pytest.mark.parametrize("name", integers())
def test_int8_functions_are_refused_in_a_sentence(exporting: None, name: str) -> None:
    layer, x = integers()[name]
    with pytest.raises(NotImplementedError, match=REFUSED.format(name)):
        torch.export.export(layer, (x,))


def test_the_exporter_passes_the_sentence_on() -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    layer, x = integers()["quantize"]
    with pytest.raises(torch.onnx.OnnxExporterError, match=REFUSED.format("quantize")):
        torch.onnx.export(layer.eval(), (x,), io.BytesIO(), dynamo=True, verbose=False)


def test_a_trace_for_the_old_exporter_is_pytorchs(exporting: None) -> None:
    with use_backend("cuda"):
        traced = torch.jit.trace(
            cnnkernels.replace_layers(Segmenter()).model.body, (torch.randn(2, 4, 13, 12),), check_trace=False
        )
    assert "cnnkernels::" not in str(traced.inlined_graph)
