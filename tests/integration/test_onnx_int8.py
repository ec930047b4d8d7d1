"""INT8 models in ONNX: QuantizeLinear and DequantizeLinear around plain operators, in onnxruntime beside ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnkernels.nn as ours
from cnnkernels import quantize
from cnnkernels.quantization.tables import Int8Activation
from helpers.models.quantize import Branches, MobileNet, Pools, ResNet, images, outputs, trained

pytestmark = pytest.mark.usefixtures("on_the_reference")


def program_of(model: nn.Module, x: Tensor) -> Any:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    with torch.no_grad():
        return torch.onnx.export(model.eval(), (x,), dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},))


def ran(program: Any, x: Tensor) -> list[Tensor]:
    """By onnxruntime as the graph stands: what it fuses it computes in ways of its own."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs what was exported")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet": (ResNet, 8), "MobileNet": (MobileNet, 12), "pools": (Pools, 6), "branches": (Branches, 3)
}  # fmt: skip


@pytest.mark.parametrize(("make", "least"), MODELS.values(), ids=MODELS)
def test_models_run_beside_ours(make: Callable[[], nn.Module], least: int) -> None:
    """In another batch than the one exported; apart by what a code or two on a border make."""
    float_model, x = trained(make()), images(batch=6)
    model = quantize(float_model, x).model
    program = program_of(model, images(batch=2))
    kinds = Counter(node.op_type for node in program.model_proto.graph.node)
    assert kinds["QuantizeLinear"] >= least - 1 and kinds["DequantizeLinear"] >= kinds["QuantizeLinear"]
    stored = [
        weight for weight in program.model_proto.graph.initializer if weight.data_type == 3 and len(weight.dims) > 1
    ]
    assert len(stored) == sum(isinstance(m, (ours.Int8Conv2d, ours.Int8Linear)) for m in model.modules())
    for got, mine, exact in zip(ran(program, x), outputs(model, x), outputs(float_model, x), strict=True):
        assert (got - mine).norm() <= 0.25 * (mine - exact).norm(), "it is nearer to ours than ours to the float model"


LAYERS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "max pool": (lambda: ours.Int8MaxPool2d(3, 2, 1), True),
    "average": (lambda: ours.Int8AvgPool2d(2, zero_point=7), True),
    "mean": (lambda: ours.Int8AdaptiveAvgPool2d(-9), True),
    "reflected": (
        lambda: ours.Int8Conv2d.from_float(
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), input_scale=0.25, out_scale=64.0, out_zero_point=3,
            activation="leaky_relu",
        ),
        True,
    ),
    "to uint8": (
        lambda: ours.Int8Linear.from_float(
            nn.Linear(6, 3), input_scale=0.25, out_scale=0.5, out_zero_point=99, out_dtype=torch.uint8,
            activation="leaky_relu", negative_slope=0.5,
        ),
        True,
    ),
    "weight-only": (lambda: ours.Int8Linear.from_float(nn.Linear(6, 3), mode="weight_only"), False),
    "quantize": (lambda: ours.Quantize(0.25, 3), False),
    "activation": (lambda: Int8Activation(nn.LeakyReLU(0.5), (0.25, 3), (0.125, -90), torch.float32), True),
    "dequantize": (lambda: ours.Dequantize(0.25, 3), True),
}  # fmt: skip


@pytest.mark.parametrize(("make", "codes"), LAYERS.values(), ids=LAYERS)
def test_layers(make: Callable[[], nn.Module], codes: bool) -> None:
    torch.manual_seed(0)
    layer, x = make().eval(), torch.randint(-128, 128, (2, 4, 6, 6)).to(torch.int8)
    x = x if codes else x.float() / 4
    [got] = ran(program_of(layer, x), x)
    [mine] = outputs(layer, x)
    assert got.dtype is mine.dtype and got.shape == mine.shape
    if mine.is_floating_point():
        torch.testing.assert_close(got, mine)
    else:
        assert torch.equal(got, mine)


def test_rows_with_scales_of_their_own_are_refused() -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    model = quantize(nn.Linear(6, 3).eval(), mode="dynamic").model
    with pytest.raises(torch.onnx.OnnxExporterError, match="mode 'dynamic' gives each row a scale of its own"):
        program_of(model, torch.ones(2, 6))
