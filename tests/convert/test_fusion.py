"""replace_layers(fuse=True): which chains it finds in models as they are written, and what it computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels import use_backend
from cnnkernels.convert.fused import FusedConv2dForInference, FusedForInference
from cnnkernels.testing.numerics import UNIT_ROUNDOFF
from helpers.models.fusion import (
    ConvNeXtBlock,
    MBConv,
    Untraceable,
    chain,
    conv_norm,
    fused,
    image,
    mobilenet_v1,
    mobilenet_v2,
    trained,
)

# How many pairs are fused, how many other convolutions with what follows them, and what is told of the rest.
MODELS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "mobilenet_v1": (mobilenet_v1, 2, 1, 0),
    "mobilenet_v2": (mobilenet_v2, 3, 3, 0),
    "efficientnet without squeeze-excite": (lambda: nn.Sequential(conv_norm(3, 8), MBConv(8, 6, False)), 1, 1, 0),
    "efficientnet": (lambda: nn.Sequential(conv_norm(3, 8), MBConv(8, 6, True)), 0, 3, 1),
    "convnext": (lambda: nn.Sequential(conv_norm(3, 8), ConvNeXtBlock(8)), 0, 1, 1),
    "no norm, a multiplier": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, dilation=(2, 1)), nn.LeakyReLU(0.2), nn.Conv2d(6, 4, 1)),
        1, 0, 0,
    ),
    "groups, strides, no norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding="valid"), nn.GELU(),
                              nn.Conv2d(6, 4, 2, groups=2, dilation=2), nn.LeakyReLU(0.3),
                              nn.Conv2d(4, 2, 1, bias=False), nn.BatchNorm2d(2)), 0, 3, 0
    ),
    "padding modes": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=2, padding_mode="reflect"), nn.BatchNorm2d(6), nn.SiLU(),
                              nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="circular"), nn.ReLU6(),
                              nn.Conv2d(6, 2, 1)), 0, 2, 1
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "pairs", "convolutions", "refused"), MODELS.values(), ids=MODELS)
def test_finds_chains_in_real_models(
    device, make: Callable[[], nn.Module], pairs: int, convolutions: int, refused: int
) -> None:
    model = trained(make(), device)
    keys, expected = set(model.state_dict()), model(image(device))
    report = fused(model)
    assert (len(report.fused), len(report.unfused)) == (pairs + convolutions, refused), report
    kinds = [type(m) for m in report.model.modules()]
    assert [kinds.count(kind) for kind in (FusedForInference, FusedConv2dForInference)] == [pairs, convolutions]
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(image(device)), expected)
    assert set(model.state_dict()) == keys and torch.equal(model(image(device)), expected), "the model itself changed"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_errs_at_most_twice_as_much(device, dtype: torch.dtype) -> None:
    """Against fp64: folding rounds the filters anew, but rounds once where convolution and norm round twice."""
    model = trained(mobilenet_v2(), device, dtype)
    exact = copy.deepcopy(model).double()(image(device, dtype).double())
    theirs = model(image(device, dtype))
    before, torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.conv.fp32_precision, "ieee"
    try:
        with use_backend("cuda"):
            ours = fused(model).model(image(device, dtype))
    finally:
        torch.backends.cudnn.conv.fp32_precision = before
    bound = 2 * (theirs - exact).abs().max() + UNIT_ROUNDOFF[dtype] * exact.abs().max()
    assert (ours - exact).abs().max() <= bound


@pytest.mark.parametrize("mixed", [("ieee", "tf32"), ("none", "ieee")], ids=str)
def test_a_precision_of_convolutions_alone(device, mixed: tuple[str, str]) -> None:
    """torch.export gives up at two settings for cuDNN, with oneDNN switched off for the rest of the process."""
    cudnn: Any = torch.backends.cudnn
    layers = cudnn.conv, cudnn.rnn
    before = [layer.fp32_precision for layer in layers]
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), device)
    try:
        for layer, precision in zip(layers, mixed, strict=True):
            layer.fp32_precision = precision
        with pytest.raises(RuntimeError, match="different TF32 flags"):
            print(cudnn.allow_tf32)
        report = fused(model)
        assert len(report.fused) == 1
        assert tuple(layer.fp32_precision for layer in layers) == mixed
        assert torch.backends.mkldnn.enabled and torch._C._get_nnpack_enabled()
    finally:
        for layer, precision in zip(layers, before, strict=True):
            layer.fp32_precision = precision


def test_folding_is_rounded_once(device) -> None:
    pair = nn.Sequential(nn.Conv2d(16, 32, 1, groups=16), nn.BatchNorm2d(32), nn.Conv2d(32, 1, 1))
    model = trained(pair, device, torch.float32)
    conv, norm = model[0], model[1]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    layer = fused(model).model[0]
    shift = (conv.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    alone = fused(model[:2]).model[0]
    for folded in (layer.depthwise, alone):
        assert torch.equal(folded.weight, (conv.weight.double() * scale.view(32, 1, 1, 1)).float())
        assert torch.equal(folded.bias, shift.float())
        assert not folded.weight.requires_grad and (folded.in_channels, folded.out_channels) == (16, 32)
    assert isinstance(alone, cnnkernels.nn.Conv2dAct) and alone.activation == "none"
    assert layer.pointwise.weight is model[2].weight, "without a norm nothing is copied"


def test_traces_block_by_block_where_the_whole_cannot_be(device) -> None:
    model = trained(nn.Sequential(Untraceable(False), nn.Conv2d(6, 4, 1), Untraceable(False)), device)
    report = fused(model)
    assert [layer.names for layer in report.fused] == [
        (" + ".join(f"{i}.called.{name}" for name in ("dw", "bn", "act", "pw")),) for i in (0, 2)
    ]
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x), model(x))


@pytest.mark.parametrize("pair", [True, False])
def test_a_fused_layer_does_not_train(device, pair: bool) -> None:
    report = fused(trained(chain() if pair else chain()[:3], device))
    x = image(device, channels=4)
    with pytest.raises(RuntimeError, match="fused for inference"):
        report.model.train()(x)
    report.model.eval()(x)


def test_a_norm_may_keep_its_numbers_in_fp32(device) -> None:
    """As mixed-precision training leaves a model."""
    model = trained(chain(), device, torch.bfloat16)
    model.bn.float()
    layer = fused(model).model.dw
    assert isinstance(layer, FusedForInference) and layer.depthwise.bias.dtype is torch.bfloat16


class Readers(nn.Module):
    """Reads the link `of` a chain once more."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.conv, self.bn, self.act, self.of = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), of

    def forward(self, x: Tensor) -> Tensor:
        links = {"conv": self.conv(x)}
        links["bn"] = self.bn(links["conv"])
        return self.act(links["bn"]) + links[self.of]


@pytest.mark.parametrize(("of", "names"), [("conv", ["bn + act"]), ("bn", ["conv + bn"])])
def test_a_convolution_keeps_what_others_read(device, of: str, names: list[str]) -> None:
    model = trained(Readers(of), device)
    report = fused(model)
    assert [line.names[0] for line in report.fused] == names and not report.unfused
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x), model(x))


def test_norms_before_a_shared_activation_are_folded(device) -> None:
    """As in torchvision's ResNets, whose blocks call one ReLU several times."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.conv2, self.bn2 = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            out += x
            return self.relu(out)

    model = trained(Block(), device)
    report = cnnkernels.replace_layers(copy.deepcopy(model), fuse=True, inplace=True)  # its code stays what it is
    assert [line.names[0] for line in report.fused] == ["conv1 + bn1", "conv2 + bn2"]
    assert isinstance(report.model.relu, nn.ReLU)
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x.clone()), model(x.clone()))


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation, as model libraries have it."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return self.act(self.drop(x))


class Standardized(nn.Conv2d):
    """Its filters are standardized whenever it runs."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


class Loops(nn.Module):
    """Goes through a Sequential of blocks by itself, as YOLO does, and asks for the size of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(conv_norm(4, 6, act=nn.SiLU), conv_norm(6, 6, act=nn.SiLU), nn.Conv2d(6, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 64 == 0:
            return self.model(x) + 1
        for block in self.model:
            x = block(x)
        return x


def normalized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 1))


# What is written, and the names of what is fused.
SPELLINGS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "norm with activation": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), NormAct(6, nn.SiLU())), ["0 + 1 + 1.act"]),
    "norm with an activation of its own": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), NormAct(6, nn.Sigmoid()), nn.Conv2d(6, 4, 1)), ["0 + 1"]
    ),
    "pair of such": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), NormAct(4, nn.ReLU()), nn.Conv2d(4, 6, 1),
                              NormAct(6, nn.Identity())), ["0 + 1 + 1.act + 2 + 3"]
    ),
    "standardized filters": (lambda: nn.Sequential(Standardized(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), ["0 + 1 + 2"]),
    "normalized filters": (lambda: nn.Sequential(normalized(), nn.BatchNorm2d(6), nn.ReLU()), ["0 + 1 + 2"]),
    "pair with normalized filters": (lambda: chain(pw=normalized()), ["dw + bn + act + pw"]),
    "functional activation": (lambda: nn.Sequential(Functional(), nn.Conv2d(6, 4, 1)), ["0.conv + 0.bn"]),
    "functional activation of a part": (lambda: Untraceable(False, Functional()), ["called.conv + called.bn"]),
    "loop": (Loops, ["model.0.0 + model.0.1 + model.0.2", "model.1.0 + model.1.1 + model.1.2"]),
}  # fmt: skip


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


@pytest.mark.parametrize(("make", "names"), SPELLINGS.values(), ids=SPELLINGS)
def test_chains_of_any_spelling(device, make: Callable[[], nn.Module], names: list[str]) -> None:
    model = trained(make(), device)
    report = fused(model)
    assert [line.names[0] for line in report.fused] == names and not report.unfused, report
    assert not any(isinstance(module, nn.BatchNorm2d) for module in report.model.modules())
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x), model(x))


def test_an_example_is_the_callers() -> None:
    """For a model that takes no image alone; else it is not asked for."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = conv_norm(4, 6)

        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return self.block(x) * scale

    model = Two().eval()
    report = fused(model)
    assert not report.fused
    assert [str(line) for line in report.unfused] == [
        "(the model): Two(): no image was found that the model takes: give replace_layers an example of its input"
    ]
    x, scale = torch.randn(1, 4, 5, 5), torch.ones(())
    report = cnnkernels.replace_layers(model, fuse=True, example={"x": x, "scale": scale})
    assert [line.names[0] for line in report.fused] == ["block.0 + block.1 + block.2"]
    with pytest.raises(TypeError, match="scale"):
        cnnkernels.replace_layers(model, fuse=True, example=x)
    with pytest.raises(ValueError, match="an example is for fuse=True"):
        cnnkernels.replace_layers(model, example=x)


def test_fuses_a_converted_model_on_its_backend(device) -> None:
    model = trained(mobilenet_v1(), device)
    converted = cnnkernels.replace_layers(model, backend="reference").model
    report = fused(converted)
    layers = [m for m in report.model.modules() if isinstance(m, (FusedForInference, FusedConv2dForInference))]
    assert [m.backend for m in layers] == ["reference"] * 3 and not report.unfused
    torch.testing.assert_close(report.model(image(device)), model(image(device)))


def test_the_report_and_a_second_call(device) -> None:
    report = cnnkernels.replace_layers(trained(mobilenet_v2(), device), backend="cuda", fuse=True)
    text = str(report)
    assert text.startswith("swapped 0, kept 0, fused 6, not fused 0")
    assert "fused   1.conv.0.0 + 1.conv.0.1 + 1.conv.0.2 + 1.conv.1 + 1.conv.2: FusedForInference(" in text
    assert "fused   0.0 + 0.1 + 0.2: FusedConv2dForInference(3, 8, kernel_size=(3, 3)" in text
    assert all(m.backend == "cuda" for m in report.model.modules() if isinstance(m, FusedForInference))
    again = fused(report.model)
    assert not again.fused and not again.unfused and not again.swapped
    assert "fused" not in str(cnnkernels.replace_layers(mobilenet_v2()))
