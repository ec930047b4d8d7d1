"""replace_layers(fuse=True): which chains it finds in models as they are written, what it computes, why it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels import use_backend
from cnnkernels.convert import Replacement
from cnnkernels.fusion import FusedForInference
from cnnkernels.testing.numerics import UNIT_ROUNDOFF


def conv_norm(c: int, k: int, size: int = 3, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU6):
    layers = [nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(k)]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, c: int, k: int, stride: int, expand: int) -> None:
        super().__init__()
        self.skips = stride == 1 and c == k
        hidden = c * expand
        first = [conv_norm(c, hidden, 1)] if expand > 1 else []
        self.conv = nn.Sequential(
            *first, conv_norm(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, k, 1, bias=False), nn.BatchNorm2d(k)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skips else self.conv(x)


class SqueezeExcite(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()


class MBConv(nn.Module):
    """EfficientNet's block, with or without squeeze-excite between the pair."""

    def __init__(self, c: int, k: int, squeeze: bool) -> None:
        super().__init__()
        self.conv_dw, self.bn1, self.act1 = nn.Conv2d(c, c, 5, padding=2, groups=c), nn.BatchNorm2d(c), nn.SiLU()
        self.se = SqueezeExcite(c) if squeeze else nn.Identity()
        self.conv_pw, self.bn2 = nn.Conv2d(c, k, 1), nn.BatchNorm2d(k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_dw(x)))
        if isinstance(self.se, SqueezeExcite):
            x = self.se(x)
        return self.bn2(self.conv_pw(x))


class ConvNeXtBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.pwconv = nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pwconv(self.norm(self.dwconv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def mobilenet_v1() -> nn.Sequential:
    pairs = [
        nn.Sequential(conv_norm(c, c, 3, stride, c, nn.ReLU), conv_norm(c, k, 1, act=nn.ReLU))
        for c, k, stride in ((8, 16, 1), (16, 24, 2))
    ]
    return nn.Sequential(
        conv_norm(3, 8, 3, 2, act=nn.ReLU), *pairs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
    )


def mobilenet_v2() -> nn.Sequential:
    blocks = [InvertedResidual(8, 8, 1, 1), InvertedResidual(8, 12, 2, 3), InvertedResidual(12, 12, 1, 2)]
    return nn.Sequential(conv_norm(3, 8, 3, 2), *blocks)


def trained(model: nn.Module, device: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """In eval, with statistics and affine maps as training would leave them."""
    generator = torch.Generator().manual_seed(0)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(like.shape).uniform_(low, high, generator=generator)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            bound = 1.5 * module.weight[0].numel() ** -0.5
            module.weight.data = uniform(module.weight, -bound, bound)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = uniform(module.bias, -0.2, 0.2), uniform(module.bias, 0.3, 1.5)
            module.weight.data, module.bias.data = uniform(module.bias, 0.6, 1.4), uniform(module.bias, -0.3, 0.6)
    return model.to(device, dtype).eval()


def image(device: str, dtype: torch.dtype = torch.float64, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 14, 13, generator=torch.Generator().manual_seed(1)).to(device, dtype)


def fused(model: nn.Module) -> Replacement:
    return cnnkernels.replace_layers(model, fuse=True)


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "mobilenet_v1": (mobilenet_v1, 2, 0),
    "mobilenet_v2": (mobilenet_v2, 3, 0),
    "efficientnet without squeeze-excite": (lambda: nn.Sequential(conv_norm(3, 8), MBConv(8, 6, False)), 1, 0),
    "efficientnet": (lambda: nn.Sequential(conv_norm(3, 8), MBConv(8, 6, True)), 0, 1),
    "convnext": (lambda: nn.Sequential(conv_norm(3, 8), ConvNeXtBlock(8)), 0, 1),
    "no norm, a multiplier": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.LeakyReLU(0.2), nn.Conv2d(6, 4, 1)), 1, 0
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "count", "refused"), MODELS.values(), ids=MODELS)
def test_finds_chains_in_real_models(device, make: Callable[[], nn.Module], count: int, refused: int) -> None:
    model = trained(make(), device)
    keys, expected = set(model.state_dict()), model(image(device))
    report = fused(model)
    assert (len(report.fused), len(report.unfused)) == (count, refused), report
    assert sum(isinstance(m, FusedForInference) for m in report.model.modules()) == count
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
    with use_backend("cuda"):
        ours = fused(model).model(image(device, dtype))
    torch.backends.cudnn.conv.fp32_precision = before
    bound = 2 * (theirs - exact).abs().max() + UNIT_ROUNDOFF[dtype] * exact.abs().max()
    assert (ours - exact).abs().max() <= bound


def test_folding_is_rounded_once(device) -> None:
    pair = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    model = trained(pair, device, torch.float32)
    conv, norm = model[0], model[1]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    layer = fused(model).model[0]
    shift = (conv.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
    assert torch.equal(layer.depthwise.weight, (conv.weight.double() * scale.view(2, 1, 1, 1)).float())
    assert torch.equal(layer.depthwise.bias, shift.float())
    assert layer.pointwise.weight is model[2].weight, "without a norm nothing is copied"


def chain(**changes: nn.Module) -> nn.Sequential:
    layers = {
        "dw": nn.Conv2d(4, 4, 3, padding=1, groups=4),
        "bn": nn.BatchNorm2d(4),
        "act": nn.ReLU(),
        "pw": nn.Conv2d(4, 6, 1),
    }
    made = nn.Sequential()
    for name, layer in (layers | changes).items():
        made.add_module(name, layer)
    return made.eval()


def reason(model: nn.Module) -> str:
    report = fused(model)
    assert not report.fused and len(report.unfused) == 1, report
    assert f"unfused {report.unfused[0]}" in str(report)
    return report.unfused[0].reason


class Own(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 3)


class Taps(nn.Module):
    """Returns what lies between too."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = chain()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        between = self.pair.act(self.pair.bn(self.pair.dw(x)))
        return self.pair.pw(between), between


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = chain()

    def forward(self, x: Tensor) -> Tensor:
        return self.pair.pw(F.relu(self.pair.dw(x)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = chain(pw=nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.pair(x))


class Untraceable(nn.Module):
    """Looks at values, as code that torch.fx cannot follow does, and calls its parts or looks into them."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        if looks:
            self.looked_into = chain()
        else:
            self.called = chain()

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        if hasattr(self, "called"):
            return self.called(x)
        for layer in self.looked_into:
            x = layer(x)
        return x


def norm_in_training() -> nn.Module:
    model = chain()
    model.bn.train()
    return model


def hooked(where: str) -> nn.Module:
    model = nn.Sequential(nn.Sequential(*list(chain())[:3]), nn.Conv2d(4, 6, 1)).eval()
    model.get_submodule(where).register_forward_hook(lambda module, args, output: None)
    return model


def shared() -> nn.Module:
    model = nn.Sequential(chain(), nn.Conv2d(6, 6, 1)).eval()
    model[0].pw = nn.Conv2d(4, 6, 1)
    model[1] = nn.Conv2d(4, 6, 1)
    model[1].weight = model[0].pw.weight
    return nn.Sequential(model[0], nn.Conv2d(6, 4, 1), model[1]).eval()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "training": (lambda: chain().train(), "it is in training mode: fusing is for inference"),
    "norm in training": (norm_in_training, "its BatchNorm2d is in training mode"),
    "hook": (lambda: hooked("0.1"), "its BatchNorm2d has hooks"),
    "hook around a part": (lambda: hooked("0"), "Sequential 0, which holds a part of the chain, has hooks"),
    "tap": (Taps, "more than one reader (pair_pw, output) follows"),
    "functional activation": (Functional, "relu follows, not a 1x1 convolution"),
    "run twice": (Twice, "it is used more than once"),
    "shared parameter": (shared, "its Conv2d shares its weight with another layer"),
    "own arithmetic": (lambda: chain(act=Own()), "Own has arithmetic of its own"),
    "batch statistics": (lambda: chain(bn=nn.BatchNorm2d(4, track_running_stats=False)), "BatchNorm2d follows"),
    "3x3 follows": (lambda: chain(pw=nn.Conv2d(4, 6, 3)), "not a 1x1 convolution of stride 1"),
    "padded 1x1": (lambda: chain(pw=nn.Conv2d(4, 6, 1, padding=1)), "has padding"),
    "padding mode": (lambda: chain(dw=nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect")), "reflect"),
    "mixed types": (lambda: chain(pw=nn.Conv2d(4, 6, 1).double()), "torch.float64 on cpu, beside torch.float32 on cpu"),
    "looked into": (lambda: Untraceable(True).eval(), "the code that runs it could not be traced"),
    "alone": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)).eval(), "the output follows"),
}


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_refuses_with_the_reason(make: Callable[[], nn.Module], why: str) -> None:
    assert why in reason(make())


def test_traces_block_by_block_where_the_whole_cannot_be(device) -> None:
    model = trained(nn.Sequential(Untraceable(False), nn.Conv2d(6, 4, 1), Untraceable(False)), device)
    report = fused(model)
    assert [layer.names for layer in report.fused] == [
        (" + ".join(f"{i}.called.{name}" for name in ("dw", "bn", "act", "pw")),) for i in (0, 2)
    ]
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x), model(x))


def test_a_smooth_activation_is_left_out_where_the_kernel_has_another(device) -> None:
    """The approximate gelu, and a second slope, are no part of the chain before or after it."""
    approximate = trained(chain(act=nn.GELU(approximate="tanh")), device)
    assert "GELU follows" in reason(approximate)
    two_slopes = trained(chain(act=nn.LeakyReLU(0.1), last=nn.LeakyReLU(0.3)), device)
    report = fused(two_slopes)
    assert report.fused[0].names == ("dw + bn + act + pw",) and isinstance(report.model.last, nn.LeakyReLU)
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x), two_slopes(x))


def test_a_fused_layer_does_not_train(device) -> None:
    report = fused(trained(chain(), device))
    x = image(device, channels=4)
    with pytest.raises(RuntimeError, match="fused for inference"):
        report.model.train()(x)
    report.model.eval()(x)


def test_the_report_and_a_second_call(device) -> None:
    report = cnnkernels.replace_layers(trained(mobilenet_v2(), device), backend="cuda", fuse=True)
    text = str(report)
    assert text.startswith("swapped 3, kept 0, fused 3, not fused 0")
    assert "fused   1.conv.0.0 + 1.conv.0.1 + 1.conv.0.2 + 1.conv.1 + 1.conv.2: FusedForInference(" in text
    assert all(m.backend == "cuda" for m in report.model.modules() if isinstance(m, FusedForInference))
    again = fused(report.model)
    assert not again.fused and not again.unfused and not again.swapped
    assert "fused" not in str(cnnkernels.replace_layers(mobilenet_v2()))
