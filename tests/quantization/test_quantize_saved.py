"""What `quantize` makes as a module: its state, copies, files, devices and memory, and what it refuses."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnkernels import convert_qat, load_quantized, prepare_qat, quantize, save_quantized
from cnnkernels.nn import Int8Conv2d
from helpers.models.quantize import (
    Branches,
    MobileNet,
    Net,
    ResNet,
    Twice,
    Untraceable,
    conv_norm,
    count,
    images,
    output,
    outputs,
    trained,
)

pytestmark = pytest.mark.usefixtures("on_the_reference")


def qat(model: nn.Module, x: Tensor) -> Any:
    prepared = prepare_qat(model.train(), x)
    prepared(x)
    return convert_qat(prepared.eval())


def test_scales_and_zero_points_are_buffers() -> None:
    model = quantize(trained(ResNet()), images()).model
    buffers, state = dict(model.named_buffers()), model.state_dict()
    names = ["input_scale", "out_scale", "residual_scale"]
    for name, layer in model.named_modules():
        if isinstance(layer, Int8Conv2d):
            assert buffers[f"{name}.scales"].tolist() == [getattr(layer, n) or 0.0 for n in names]
            assert buffers[f"{name}.zero_points"].tolist() == [
                layer.input_zero_point, layer.out_zero_point, layer.residual_zero_point
            ]  # fmt: skip
            assert {f"{name}.weight_sum", f"{name}.scales", f"{name}.zero_points"} <= state.keys()
    assert set(buffers) <= state.keys()
    layer = model.layer1.conv2
    layer.residual_scale, layer.out_zero_point = 0.25, 7
    assert layer.scales[2] == 0.25 and layer.zero_points[1] == 7
    layer.load_state_dict(state | {"scales": torch.tensor([0.5, 2.0, 0.0]).double()}, strict=False)
    assert (layer.input_scale, layer.out_scale, layer.residual_scale) == (0.5, 2.0, None)


def dynamic(model: nn.Module, x: Tensor) -> Any:
    return quantize(model, mode="dynamic")


@pytest.mark.parametrize("make", [quantize, qat, dynamic])
def test_training_is_refused(make: Callable[..., Any]) -> None:
    model = make(trained(ResNet()), images()).model
    for one in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(RuntimeError, match="an INT8 model is for inference, not for train"):
            one.train()
        assert one.eval() is one and one.train(False) is one
    with pytest.raises(RuntimeError, match="an INT8 model is for inference"):
        quantize(trained(Untraceable()), images()).model.train()


def test_weights_alone_train_what_is_before_them() -> None:
    """Mode "weight_only" passes gradients on, so its model takes part in training."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    made = quantize(model, mode="weight_only", keep=["0"]).model.train()
    made(torch.ones(3, 4)).sum().backward()
    assert made[0].weight.grad is not None and made[0].weight.grad.any()


def heads(channels: int) -> nn.Module:
    return nn.Sequential(conv_norm(3, 8), conv_norm(8, 8), nn.Conv2d(8, channels, 1))


MEMORY = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("given", MEMORY.values(), ids=MEMORY)
@pytest.mark.parametrize("make", [lambda: heads(4), lambda: heads(1), Branches])
def test_images_are_in_the_float_models_order(make: Callable[[], nn.Module], given: torch.memory_format) -> None:
    """Also of one channel, and of inputs in another order than the one captured."""
    model, x = trained(make()), images()
    result = quantize(model, x.to(memory_format=given)).model
    for order in MEMORY.values():
        for got, expected in zip(*(outputs(m, x.to(memory_format=order)) for m in (result, model)), strict=True):
            assert got.stride() == expected.stride()


def makes(m: Any, x: Tensor) -> Tensor:
    y = m.c(x) + torch.arange(x.shape[-1]).to(x.device) * torch.tensor([1.0, 2.0]).view(2, 1, 1)
    return m.d(y + torch.zeros(len(x), 1, 1, 1, device=x.device))


def test_everything_moves() -> None:
    model = quantize(trained(Net(makes)), images(2)).model.to("meta")
    assert {tensor.device.type for tensor in (*model.buffers(), *model.parameters())} == {"meta"}
    assert output(model, images(2).to("meta")).device.type == "meta"
    named = [a for node in model.graph.nodes for a in (*node.args, *node.kwargs.values())]
    assert not any(isinstance(value, torch.device) for value in named)


def test_copies_keep_hooks_and_attributes() -> None:
    model = trained(nn.Sequential(conv_norm(3, 6), conv_norm(6, 6), nn.Conv2d(6, 4, 1)))
    model.stride = 7
    for part in (model, model[1]):
        part.register_forward_hook(noting)
    made, x = quantize(model, images()).model, images()
    expected = output(made, x)
    for clone in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        CALLS.clear()
        assert torch.equal(output(copy.deepcopy(clone), x), expected)
        assert len(CALLS) == 2 and clone.stride == 7 and not any(module.training for module in clone.modules())


CALLS: list[int] = []


def noting(module: nn.Module, args: Any, output: Tensor) -> None:
    """At the top, as a file keeps its name."""
    CALLS.append(1)


class NoReads(TorchDispatchMode):
    """As a CUDA graph does: no value is read back, and no tensor made on the host is copied in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default), func
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back() -> None:
    model, x = quantize(trained(MobileNet()), images()).model, images()
    with torch.no_grad(), NoReads():
        model(x)


def test_exported_and_saved() -> None:
    model, x = quantize(trained(ResNet()), images()).model, images(batch=2)
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        assert torch.equal(loaded(images()), model(images()))


class Norms(nn.Module):
    """A layer called twice, with a norm of its own each time: two weights, which are one before they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x)).relu()))


FRESH: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any]]] = {
    "static": (ResNet, quantize),
    "kept": (ResNet, lambda m, x: quantize(m, x, keep=["fc", lambda name, layer: name.endswith("conv1")])),
    "twice": (Twice, quantize),
    "norms": (Norms, quantize),
    "branches": (Branches, quantize),
    "in pieces": (Untraceable, quantize),
    "dynamic": (ResNet, dynamic),
    "weight_only": (ResNet, lambda m, x: quantize(m, mode="weight_only")),
    "qat": (ResNet, qat),
}


@pytest.mark.parametrize(("make", "quantized"), FRESH.values(), ids=FRESH)
def test_into_a_fresh_model(make: Callable[[], nn.Module], quantized: Callable[..., Any], tmp_path: Path) -> None:
    x, file = images(), tmp_path / "model.safetensors"
    result = quantized(trained(make()), x)
    save_quantized(result, file)
    torch.manual_seed(9)
    fresh = make()
    before = copy.deepcopy(fresh.state_dict())
    made = load_quantized(fresh, file)
    for got, expected in zip(outputs(made, x), outputs(result.model, x), strict=True):
        assert torch.equal(got, expected)
    assert fresh.training and all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())
    assert made.state_dict().keys() == result.model.state_dict().keys()
    convs = [layer for layer in made.modules() if isinstance(layer, Int8Conv2d)]
    if make in (Twice, Norms):
        assert (convs[0].weight is convs[1].weight) == (make is Twice)
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convs)


class Words(nn.Module):
    """Called with indices, a number and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, index: Tensor, mask: Tensor | None = None, times: Any = 1) -> Tensor:
        y = self.out(self.words(index)) * (1 if times == 1 else 2)
        return y if mask is None else y.masked_fill(~mask[..., None], 0)


def test_arguments_of_every_kind(tmp_path: Path) -> None:
    index, file = torch.tensor([[0, 4, 2]]), tmp_path / "words.safetensors"
    batch = {"index": index, "mask": torch.tensor([[True, False, True]]), "times": 3}
    result = quantize(Words().eval(), batch)
    save_quantized(result, file)
    with torch.no_grad():
        assert torch.equal(load_quantized(Words(), file)(**batch), result.model(**batch))
    result = quantize(Words().eval(), [(index, None, slice(1))])
    with pytest.raises(TypeError, match=r"a file cannot keep an argument of the model: .*slice"):
        save_quantized(result, file)
    assert load_file(file), "a save that failed left no whole file"


def test_files_that_are_no_such_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(TypeError, match=r"argument 'result' must be what quantize returned, not ResNet"):
        save_quantized(ResNet(), file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"argument 'model' must be a torch\.nn.Module, not str"):
        load_quantized("model", file)  # type: ignore[arg-type]
    file.write_bytes(b"0123456789")
    with pytest.raises(ValueError, match="is no file of safetensors"):
        load_quantized(ResNet(), file)
    save_file({"x": torch.ones(1)}, file)
    with pytest.raises(ValueError, match="is not from save_quantized"):
        load_quantized(ResNet(), file)
    save_quantized(quantize(trained(ResNet()), images()), file)
    with pytest.raises(ValueError, match=r"written with PyTorch .* is of another model than this: .*Missing key"):
        load_quantized(trained(MobileNet()), file)
    smaller = ResNet()
    smaller.fc = nn.Linear(16, 5)
    with pytest.raises(ValueError, match=r"is of another model than this: .*size mismatch for fc"):
        load_quantized(smaller, file)


def test_a_file_holds_no_code(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_quantized(quantize(trained(ResNet()), images()), file)
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    words = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["cnnkernels"])
    assert words["how"] == "static" and words["example"]["size"] == [4, 3, 12, 12]
    assert count(load_quantized(ResNet(), file), Int8Conv2d) == 6
