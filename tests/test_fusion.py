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
from cnnkernels.fusion import FusedConv2dForInference, FusedForInference
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
    with use_backend("cuda"):
        ours = fused(model).model(image(device, dtype))
    torch.backends.cudnn.conv.fp32_precision = before
    bound = 2 * (theirs - exact).abs().max() + UNIT_ROUNDOFF[dtype] * exact.abs().max()
    assert (ours - exact).abs().max() <= bound


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
    """Why there is no pair; its first convolution may still be fused with what follows it."""
    report = fused(model)
    assert not any(isinstance(m, FusedForInference) for m in report.model.modules()), report
    assert len(report.unfused) == 1, report
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


def twice_named() -> nn.Module:
    model = chain()
    model.alias = model.act
    return nn.Sequential(Named(model)).eval()


class Named(nn.Module):
    def __init__(self, pair: nn.Module) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, x: Tensor) -> Tensor:
        return self.pair.pw(self.pair.act(self.pair.bn(self.pair.dw(x))))


def parametrized() -> nn.Module:
    model = chain()
    nn.utils.parametrizations.weight_norm(model.pw)
    return model


def complex_numbers() -> nn.Module:
    made = nn.Conv2d(4, 4, 3, groups=4, dtype=torch.complex64), nn.Conv2d(4, 6, 1, dtype=torch.complex64)
    return nn.Sequential(*made).eval()


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
    "strided 1x1": (lambda: chain(pw=nn.Conv2d(4, 6, 1, 2)), "not a 1x1 convolution of stride 1"),
    "grouped 1x1": (lambda: chain(pw=nn.Conv2d(4, 6, 1, groups=2)), "not a 1x1 convolution of stride 1"),
    "two names": (twice_named, "its ReLU is used more than once"),
    "parametrized": (parametrized, "its ParametrizedConv2d is parametrized"),
    "complex": (complex_numbers, "its weight is torch.complex64"),
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


@pytest.mark.parametrize(("of", "names"), [("conv", []), ("bn", ["conv + bn"])])
def test_a_convolution_keeps_what_others_read(device, of: str, names: list[str]) -> None:
    model = trained(Readers(of), device)
    report = fused(model)
    assert [line.names[0] for line in report.fused] == names and not report.unfused
    x = image(device, channels=4)
    with use_backend("cuda"):
        torch.testing.assert_close(report.model(x), model(x))


def in_training(model: nn.Sequential, name: str) -> nn.Module:
    model.get_submodule(name).train()
    return model


def overflowing() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).half().eval()
    model[0].weight.data.fill_(300)
    model[1].running_var.fill_(0)
    return model


CONVOLUTIONS_REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "training": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()), "it is in training mode"),
    "norm in training": (
        lambda: in_training(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()).eval(), "1"),
        "its BatchNorm2d is in training mode",
    ),
    "epilogue of its own": (
        lambda: nn.Sequential(cnnkernels.nn.Conv2dAct(4, 6, 3, activation="silu"), nn.ReLU()).eval(),
        "Conv2dAct has arithmetic of its own",
    ),
    "overflow": (overflowing, "a folded filter or bias is not finite in torch.float16"),
}


@pytest.mark.parametrize(("make", "why"), CONVOLUTIONS_REFUSED.values(), ids=CONVOLUTIONS_REFUSED)
def test_refuses_a_convolution_with_the_reason(make: Callable[[], nn.Module], why: str) -> None:
    assert why in reason(make())
    assert not any(isinstance(m, FusedConv2dForInference) for m in fused(make()).model.modules())


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
