"""Models with chains that replace_layers(fuse=True) makes one layer of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnkernels
from cnnkernels.convert.replace import Replacement


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


class Untraceable(nn.Module):
    """Looks at values, as code that torch.fx cannot follow does, and calls its parts or looks into them."""

    def __init__(self, looks: bool, part: nn.Module | None = None) -> None:
        super().__init__()
        if looks:
            self.looked_into = chain()
        else:
            self.called = part or chain()

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        if hasattr(self, "called"):
            return self.called(x)
        for layer in self.looked_into:
            x = layer(x)
        return x
