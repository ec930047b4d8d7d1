"""replace_layers(fuse=True): which chains it leaves as they are, and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels import use_backend
from cnnkernels.convert.fused import FusedConv2dForInference, FusedForInference
from helpers.models.fusion import Untraceable, chain, fused, image, trained


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


class OwnConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


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


def complex_numbers() -> nn.Module:
    made = nn.Conv2d(4, 4, 3, groups=4, dtype=torch.complex64), nn.Conv2d(4, 6, 1, dtype=torch.complex64)
    return nn.Sequential(*made).eval()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "training": (lambda: chain().train(), "it is in training mode: a pair is fused for inference"),
    "norm in training": (norm_in_training, "its BatchNorm2d is in training mode"),
    "hook": (lambda: hooked("0.1"), "its BatchNorm2d has hooks"),
    "hook around a part": (lambda: hooked("0"), "Sequential 0, which holds a part of the chain, has hooks"),
    "tap": (Taps, "more than one reader (pair_pw, output) follows"),
    "functional activation": (Functional, "relu follows, not a 1x1 convolution"),
    "run twice": (Twice, "it is used more than once"),
    "shared parameter": (shared, "its Conv2d shares its weight with another layer"),
    "own arithmetic": (lambda: chain(act=Own()), "Own follows, not a 1x1 convolution"),
    "convolution of its own": (lambda: chain(dw=OwnConv(4, 4, 3, groups=4)), "OwnConv has arithmetic of its own"),
    "batch statistics": (lambda: chain(bn=nn.BatchNorm2d(4, track_running_stats=False)), "BatchNorm2d follows"),
    "3x3 follows": (lambda: chain(pw=nn.Conv2d(4, 6, 3)), "not a 1x1 convolution of stride 1"),
    "strided 1x1": (lambda: chain(pw=nn.Conv2d(4, 6, 1, 2)), "not a 1x1 convolution of stride 1"),
    "grouped 1x1": (lambda: chain(pw=nn.Conv2d(4, 6, 1, groups=2)), "not a 1x1 convolution of stride 1"),
    "two names": (twice_named, "its ReLU is used more than once"),
    "complex": (complex_numbers, "its weight is torch.complex64"),
    "padded 1x1": (lambda: chain(pw=nn.Conv2d(4, 6, 1, padding=1)), "has padding"),
    "padding mode": (lambda: chain(dw=nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect")), "reflect"),
    "mixed types": (lambda: chain(pw=nn.Conv2d(4, 6, 1).double()), "no image was found that the model takes: give"),
    "looked into": (lambda: Untraceable(True).eval(), "the code that runs it could not be traced"),
    "alone": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)).eval(), "the output follows"),
}


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_refuses_with_the_reason(make: Callable[[], nn.Module], why: str) -> None:
    assert why in reason(make())


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


def in_training(model: nn.Sequential, name: str) -> nn.Module:
    model.get_submodule(name).train()
    return model


def overflowing() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).half().eval()
    model[0].weight.data.fill_(300)
    model[1].running_var.fill_(0)
    return model


CONVOLUTIONS_REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "training": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), "it is in training mode"),
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


class Reads(nn.Module):
    """Its code reads a layer's numbers itself."""

    def __init__(self, code: Callable[[nn.Module, Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        self.c, self.b, self.code = nn.Conv2d(4, 6, 1, bias=bias), nn.BatchNorm2d(6), code

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


# What the code does, whether the convolution has a bias, and what is read.
READS: dict[str, tuple[Callable[..., Tensor], bool, str]] = {
    "tied": (lambda m, x: m.b(m.c(x)) + F.conv2d(x, m.c.weight, m.c.bias), True, "the bias of it"),
    "statistic": (lambda m, x: m.b(m.c(x)) * m.c.weight.abs().mean(), True, "the weight of it"),
    "type": (lambda m, x: m.b(m.c(x.to(m.c.weight.dtype))), True, "the weight of it"),
    "no bias": (lambda m, x: m.b(m.c(x)) * (2 if m.c.bias is None else 1), False, "the bias of it"),
    "norm": (lambda m, x: m.b(m.c(x)) + m.b.running_mean.sum(), True, "the running_mean of its BatchNorm2d"),
}


@pytest.mark.parametrize(("code", "bias", "why"), READS.values(), ids=READS)
def test_a_chain_whose_numbers_are_read_elsewhere_is_left_alone(device, code, bias: bool, why: str) -> None:
    model = trained(Reads(code, bias), device)
    x = image(device, channels=4)
    assert why in reason(model)
    with use_backend("cuda"):
        torch.testing.assert_close(fused(model).model(x), model(x))


def test_tracing_changes_no_buffer(device) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return self.conv(x)

    model = trained(nn.Sequential(Counts(), nn.BatchNorm2d(6)), device)
    report = fused(model)
    assert model[0].calls == report.model[0].calls == 0
    report.model(image(device, channels=4))
    assert report.model[0].calls == 1
