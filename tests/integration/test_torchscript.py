"""TorchScript: torch.jit.trace of every function and layer, called at sizes other than traced; torch.jit.script."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cnnkernels
from cnnkernels import functional, nn, use_backend
from cnnkernels.testing.numerics import small_integers


def ints(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return small_integers(shape, dtype, seed)


F = functional
IMAGES, WIDER = ints(2, 4, 6, 6, seed=1), ints(3, 4, 6, 8, seed=2)
QUANTIZED = IMAGES.to(torch.int8), WIDER.to(torch.int8)
ROWS, BATCHES = (ints(3, 7, seed=3), ints(4, 7, seed=4)), (ints(3, 2, 7, seed=3), ints(2, 5, 7, seed=4))
INT8_ROWS = ROWS[0].to(torch.int8), ROWS[1].to(torch.int8)
W, DEPTHWISE, POINTWISE = ints(4, 4, 3, 3, seed=6), ints(4, 1, 3, 3, seed=7), ints(5, 4, 1, 1, seed=8)
NORM = torch.arange(1.0, 9.0).view(2, 4)  # mean and var
INT8_W, INT8_LINEAR, SCALES = W.to(torch.int8), ints(6, 7, seed=9).to(torch.int8), torch.arange(1.0, 7.0)

# what is traced, where it is traced, where it is called then
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Any], tuple[Tensor, Tensor]]] = {
    "conv2d": (lambda x: F.conv2d(x, W.to(x.device), None, 2, 1), (IMAGES, WIDER)),
    "conv2d unbatched": (lambda x: F.conv2d(x, W.to(x.device)), (IMAGES[0], WIDER[0])),
    "conv2d same": (lambda x: F.conv2d(x, W.to(x.device), padding="same"), (IMAGES, WIDER)),
    "conv2d reflect": (
        lambda x: F.conv2d(x, W.to(x.device), padding=1, padding_mode="reflect"),
        (IMAGES, WIDER),
    ),
    "conv2d epilogue": (
        lambda x: F.conv2d(
            x, W.to(x.device), padding=1, activation="relu", shift=W[:, 0, 0, 0].to(x.device), residual=x
        ),
        (IMAGES, WIDER),
    ),
    "conv1d": (lambda x: F.conv1d(x.flatten(2), W[:, :, 0].to(x.device), None, 2, "causal"), (IMAGES, WIDER)),
    "conv_transpose1d": (
        lambda x: F.conv_transpose1d(x.flatten(2), W[:, :, 0].transpose(0, 1).to(x.device), None, 2, 1),
        (IMAGES, WIDER),
    ),
    "conv_transpose2d": (
        lambda x: F.conv_transpose2d(x, W.mT.transpose(0, 1).to(x.device), None, 2, 1, 1),
        (IMAGES, WIDER),
    ),
    "depthwise_conv2d": (lambda x: F.depthwise_conv2d(x, DEPTHWISE.to(x.device)), (IMAGES, WIDER)),
    "depthwise_separable_conv2d": (
        lambda x: F.depthwise_separable_conv2d(x, DEPTHWISE.to(x.device), POINTWISE.to(x.device)),
        (IMAGES, WIDER),
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGES, WIDER)),
    "max_pool2d indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), (IMAGES, WIDER)),
    "max_pool2d indices unbatched": (lambda x: F.max_pool2d(x, 2, return_indices=True), (IMAGES[0], WIDER[0])),
    "max_pool2d_with_indices": (lambda x: F.max_pool2d_with_indices(x, 2), (IMAGES, WIDER)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2, 1), (IMAGES[0], WIDER[0])),
    "max_pool1d indices unbatched": (lambda x: F.max_pool1d(x, 2, return_indices=True), (IMAGES[0, 0], WIDER[0, 0])),
    "max_pool1d_with_indices": (lambda x: F.max_pool1d_with_indices(x, 2), (IMAGES[0], WIDER[0])),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3, 2, 1), (IMAGES[0], WIDER[0])),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 3), (IMAGES[0], WIDER[0])),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), (IMAGES, WIDER)),
    "avg_pool2d of all": (lambda x: F.avg_pool2d(x, x.shape[2:]), (IMAGES, WIDER)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (None, 3)), (IMAGES, WIDER)),
    "adaptive_avg_pool2d unbatched": (lambda x: F.adaptive_avg_pool2d(x, 1), (IMAGES[0], WIDER[0])),
    "batch_norm": (
        lambda x: F.batch_norm(x, NORM[0].to(x.device), NORM[1].to(x.device), activation="relu"),
        (IMAGES, WIDER),
    ),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d_with_indices(x, 2), 2), (IMAGES, WIDER)),
    "max_unpool2d to a size": (
        lambda x: F.max_unpool2d(*F.max_pool2d_with_indices(x, 2), 2, output_size=x.shape),
        (IMAGES[..., :5], WIDER[..., :7]),
    ),
    "quantize_per_tensor": (lambda x: F.quantize_per_tensor(x, 0.5, 3)[0], (IMAGES, WIDER)),
    "quantize_per_tensor dynamic": (lambda x: F.quantize_per_tensor(x), (IMAGES, WIDER)),
    "quantize_per_channel": (lambda x: F.quantize_per_channel(x, 1), (IMAGES, WIDER)),
    "quantize_per_token": (lambda x: F.quantize_per_token(x), (IMAGES, WIDER)),
    "dequantize": (lambda x: F.dequantize(x, SCALES[:4].to(x.device), axis=1), QUANTIZED),
    "int8_max_pool2d": (lambda x: F.int8_max_pool2d(x, 3, 2, 1), QUANTIZED),
    "int8_avg_pool2d": (lambda x: F.int8_avg_pool2d(x, 3, 2, 1), QUANTIZED),
    "int8_adaptive_avg_pool2d": (lambda x: F.int8_adaptive_avg_pool2d(x), QUANTIZED),
    "int8_conv2d": (lambda x: F.int8_conv2d(x, INT8_W.to(x.device), None, 1, 1), QUANTIZED),
    "int8_gemm": (lambda x: F.int8_gemm(x, INT8_LINEAR.t().to(x.device)), INT8_ROWS),
    "int_mm": (lambda x: F.int_mm(x, INT8_LINEAR.t().to(x.device)), INT8_ROWS),
    "int8_linear": (lambda x: F.int8_linear(x, INT8_LINEAR.to(x.device), None, SCALES.to(x.device)), BATCHES),
    "int8_weight_only_linear": (
        lambda x: F.int8_weight_only_linear(x, INT8_LINEAR.to(x.device), SCALES.to(x.device)),
        ROWS,
    ),
}


def test_every_function_is_traced() -> None:
    assert {name.partition(" ")[0] for name in FUNCTIONS} == set(functional.__all__)


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    return all(same(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "cuda") for name in FUNCTIONS), ("max_pool2d indices", "triton")]
)
def test_a_trace_holds_at_other_sizes(device: str, name: str, backend: str) -> None:
    function, (x, other) = FUNCTIONS[name]
    x, other = x.to(device), other.to(device)
    with use_backend(backend):
        traced = torch.jit.trace(function, (x,), check_trace=False)
        expected = function(other)
    assert "cnnkernels::" in str(traced.graph)
    assert same(traced(other), expected)  # on the backend that it was traced with


def layers() -> torch.nn.ModuleDict:
    """Every layer of cnnkernels.nn, for images of 4 channels (Int8Linear: for their rows of 6)."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 4, 3, padding=1)
    made: dict[str, torch.nn.Module] = {
        "Conv2d": nn.Conv2d(4, 6, (2, 3), padding="same", groups=2, padding_mode="circular"),
        "Conv1d": torch.nn.Sequential(torch.nn.Flatten(2), nn.Conv1d(4, 6, 3, padding="same")),
        "ConvTranspose2d": nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2),
        "ConvTranspose1d": torch.nn.Sequential(torch.nn.Flatten(2), nn.ConvTranspose1d(4, 6, 3, 2)),
        "Conv2dAct": nn.Conv2dAct.fold(conv, torch.nn.BatchNorm2d(4).eval(), "silu"),
        "DepthwiseConv2d": nn.DepthwiseConv2d(4, 3, channel_multiplier=2),
        "DepthwiseSeparableConv2d": nn.DepthwiseSeparableConv2d(4, 5, 3, depthwise_activation="relu"),
        "MaxPool2d": nn.MaxPool2d(2, return_indices=True),
        "MaxPool1d": torch.nn.Sequential(torch.nn.Flatten(2), nn.MaxPool1d(3, 2, 1)),
        "AvgPool1d": torch.nn.Sequential(torch.nn.Flatten(2), nn.AvgPool1d(3, 2, 1)),
        "AdaptiveAvgPool1d": torch.nn.Sequential(torch.nn.Flatten(2), nn.AdaptiveAvgPool1d(5)),
        "AvgPool2d": nn.AvgPool2d(3, 2, 1),
        "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d((2, None)),
        "BatchNorm1d": torch.nn.Sequential(torch.nn.Flatten(2), nn.BatchNorm1d(4)),
        "BatchNorm2d": nn.BatchNorm2d(4),
        "BatchNorm3d": torch.nn.Sequential(torch.nn.Unflatten(2, (1, -1)), nn.BatchNorm3d(4)),
        "BatchNorm2dAct": nn.BatchNorm2dAct(4),
        "SyncBatchNorm": nn.SyncBatchNorm(4),
        "Int8Conv2d": nn.Int8Conv2d.from_float(conv, input_scale=0.1),
        "Int8Linear": nn.Int8Linear.from_float(torch.nn.Linear(6, 3), mode="dynamic"),
        "Quantize": nn.Quantize(0.1),
        "Int8MaxPool2d": torch.nn.Sequential(nn.Quantize(0.1), nn.Int8MaxPool2d(2)),
        "Int8AvgPool2d": torch.nn.Sequential(nn.Quantize(0.1), nn.Int8AvgPool2d(2)),
        "Int8AdaptiveAvgPool2d": torch.nn.Sequential(nn.Quantize(0.1), nn.Int8AdaptiveAvgPool2d()),
        "Dequantize": torch.nn.Sequential(nn.Quantize(0.1), nn.Dequantize(0.1)),
    }
    return torch.nn.ModuleDict(made)


class Together(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()
        self.unpool = nn.MaxUnpool2d(2)
        lazy = nn.LazyConv2d(3, 2)
        lazy(IMAGES)
        self.lazy = lazy

    def forward(self, x: Tensor) -> list[Tensor]:
        results = [layer(x) for layer in self.layers.values()]
        values, indices = results.pop(list(self.layers).index("MaxPool2d"))
        return [*results, values, indices, self.unpool(values, indices, x.shape), self.lazy(x)]


READER = """
import sys, warnings, torch, cnnkernels
assert "triton" not in sys.modules  # it takes as long to import as all of cnnkernels
model, (x, expected) = torch.jit.load(sys.argv[1]), torch.load(sys.argv[2])
assert all(torch.equal(ours, theirs) for ours, theirs in zip(model(x), expected, strict=True))
with warnings.catch_warnings(record=True) as told, cnnkernels.use_backend("cuda"):
    torch.jit.trace(cnnkernels.nn.MaxPool2d(2, return_indices=True), (x,))
assert not [warning for warning in told if warning.category is torch.jit.TracerWarning], told
"""


def test_a_trace_of_every_layer_is_loaded_by_another_process(device: str, tmp_path: Path) -> None:
    """Where tracing warns of nothing."""
    everything = {name for name in nn.__all__ if not name.startswith("Lazy") and name != "MaxUnpool2d"}
    assert set(layers()) == everything
    with use_backend("reference"):
        model = Together().to(device).eval()
    x, other = IMAGES.to(device), WIDER[..., :6].to(device)
    with use_backend("cuda"), torch.no_grad():
        torch.jit.save(torch.jit.trace(model, (x,), check_trace=False), str(tmp_path / "model.pt"))
        torch.save((other, model(other)), tmp_path / "expected.pt")
    program = [sys.executable, "-c", READER, str(tmp_path / "model.pt"), str(tmp_path / "expected.pt")]
    run = subprocess.run(program, env=dict(os.environ), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


class Unpooling(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.pointwise = torch.nn.Conv2d(4, 4, 3, groups=4), torch.nn.Conv2d(4, 3, 1)
        self.pool, self.unpool = torch.nn.MaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)
        for parameter in self.parameters():
            parameter.data = small_integers(tuple(parameter.shape), torch.float32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.unpool(*self.pool(self.depthwise(x))))


def test_gradients_of_what_a_trace_returns(device: str) -> None:
    original = Unpooling().to(device)
    replaced = cnnkernels.replace_layers(original, backend="cuda").model
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(replaced, (IMAGES.to(device),)), file)
    file.seek(0)
    grads = []
    for model in (torch.jit.load(file), original):
        x = WIDER.to(device).requires_grad_()
        grads.append(torch.autograd.grad((model(x) ** 2).sum(), [x, *model.parameters()]))
    assert same(*grads)


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv_backward_input": lambda x: F.conv2d(x, W.to(x.device)),
    "max_pool_backward": lambda x: F.max_pool2d(x, 2),
    "max_unpool_backward": lambda x: F.max_unpool2d(x, torch.zeros_like(x, dtype=torch.int64), 1),
    "avg_pool_backward": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool_backward": lambda x: F.adaptive_avg_pool2d(x, 2),
    "conv_backward_input of the pair": lambda x: F.depthwise_separable_conv2d(
        x, DEPTHWISE.to(x.device), POINTWISE.to(x.device), depthwise_activation="relu"
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_inside_a_trace_are_refused(device: str, name: str) -> None:
    """Their sizes would be constants. PyTorch has no words for its own."""

    def gradient(x: Tensor) -> Tensor:
        return torch.autograd.grad(GRADIENTS[name](x).sum(), x)[0]

    x = IMAGES.to(device).requires_grad_()
    words = (
        f"torch.jit.trace can not record {name.partition(' ')[0]}, as the strides of a gradient would become constants"
    )
    with use_backend("cuda"), pytest.raises(RuntimeError, match=words):
        torch.jit.trace(gradient, (x,))


OVERLOADED = (
    "max_pool_indices",
    "max_unpool_forward",
    "int8_avg_pool",
    "avg_pool_forward",
    "adaptive_avg_pool_forward",
)


@pytest.mark.parametrize("name", OVERLOADED)
def test_only_these_operators_have_an_overload_for_traces(name: str) -> None:
    operators = [op for op in torch._C._dispatch_get_all_op_names() if op.startswith("cnnkernels::")]
    assert f"cnnkernels::{name}.traced" in operators
    assert sum(op.endswith(".traced") for op in operators) == len(OVERLOADED)


def refused(name: str) -> str:
    return f"^torch.jit.script can not compile cnnkernels' {name}: use torch.jit.trace, torch.export or torch.compile"


def test_scripting_a_layer_is_refused_in_a_sentence() -> None:
    for name, layer in layers().items():
        kind = r"\w+" if isinstance(layer, torch.nn.Sequential) else name
        for model in (layer, torch.nn.Sequential(torch.nn.ReLU(), layer)):
            with pytest.raises(NotImplementedError, match=refused(kind)):
                torch.jit.script(model)


def test_scripting_leaves_a_model_what_it_was() -> None:
    model = cnnkernels.replace_layers(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU())).model
    with pytest.raises(NotImplementedError, match=refused("Conv2d")):
        torch.jit.script(model)
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("name", functional.__all__)
def test_scripting_a_function_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(NotImplementedError, match=refused(name)):
        torch.jit.script(getattr(functional, name))


def test_scripting_code_that_calls_a_function_is_refused() -> None:
    class Calls(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.max_pool2d(x, 2)

    with pytest.raises(NotImplementedError, match=refused("max_pool2d")):
        torch.jit.script(Calls())


def test_a_trace_is_scripted_within_a_model(device: str) -> None:
    with use_backend("cuda"):
        traced = torch.jit.trace(nn.MaxPool2d(2), (IMAGES.to(device),))
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.ReLU(), traced))
    x = WIDER.to(device)
    assert torch.equal(scripted(x), torch.nn.functional.max_pool2d(x.relu(), 2))
