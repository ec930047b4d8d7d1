"""Four whole networks in plain torch.nn, to train and to run with the layers of either side.

ResNet-50 (He et al. 2015, with the stride in the 3x3), MobileNetV2 (Sandler et al. 2018), ConvNeXt-T (Liu et al. 2022)
and U-Net (Ronneberger et al. 2015, padded so that output and input are of one size).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def _conv(c: int, k: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Without bias: batch norm follows and has one."""
    return nn.Conv2d(c, k, kernel, stride, kernel // 2, groups=groups, bias=False)


# --- ResNet-50


class Bottleneck(nn.Module):
    """1x1 to a quarter of the output's channels, 3x3 there, 1x1 back, and the input added."""

    def __init__(self, c: int, width: int, stride: int) -> None:
        super().__init__()
        k = 4 * width
        self.body = nn.Sequential(
            *(_conv(c, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(_conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(_conv(width, k, 1), nn.BatchNorm2d(k)),
        )
        changes = stride != 1 or c != k
        self.shortcut = nn.Sequential(_conv(c, k, 1, stride), nn.BatchNorm2d(k)) if changes else nn.Identity()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def resnet50(classes: int = 1000) -> nn.Module:
    """25,557,032 parameters with 1000 classes."""
    blocks: list[nn.Module] = []
    c = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(depth):
            blocks.append(Bottleneck(c, width, stride if number == 0 else 1))
            c = 4 * width
    return nn.Sequential(
        *(_conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
        *blocks,
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes)),
    )


# --- MobileNetV2


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise 3x3 there, 1x1 down without activation; the input added where
    it has the output's shape."""

    def __init__(self, c: int, k: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = c * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_conv(c, width, 1), nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]
        layers += [_conv(width, width, 3, stride, width), nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]
        layers += [_conv(width, k, 1), nn.BatchNorm2d(k)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and c == k

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


# expansion, channels, blocks, stride of the first: table 2 of the paper
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(classes: int = 1000) -> nn.Module:
    """3,504,872 parameters with 1000 classes."""
    layers: list[nn.Module] = [_conv(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU6(inplace=True)]
    c = 32
    for expansion, k, depth, stride in MOBILENET_V2:
        for number in range(depth):
            layers.append(InvertedResidual(c, k, stride if number == 0 else 1, expansion))
            c = k
    layers += [_conv(c, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, classes))


# --- ConvNeXt-T


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, layer norm, a linear layer to four times the channels and one back, scaled and added."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.mixing = nn.Sequential(nn.LayerNorm(c, eps=1e-6), nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
        self.scale = nn.Parameter(torch.full((c, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixing(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.scale * mixed


def convnext_tiny(classes: int = 1000) -> nn.Module:
    """28,589,128 parameters with 1000 classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96, eps=1e-6)]
    c = 96
    for k, depth in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if k != c:
            layers += [ChannelNorm(c, eps=1e-6), nn.Conv2d(c, k, 2, 2)]
        layers += [ConvNeXtBlock(k) for _ in range(depth)]
        c = k
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(c, eps=1e-6), nn.Linear(c, classes))
    return nn.Sequential(*layers, *head)


# --- U-Net


def _double(c: int, k: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(c, k, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(k, k, 3, padding=1), nn.ReLU(inplace=True)),
    )


class UNet(nn.Module):
    """Four times down by max-pooling, four times up by transposed convolutions beside what was there on the way."""

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(_double(c, k) for c, k in zip([channels, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, k, 2, 2) for c, k in steps)
        self.join = nn.ModuleList(_double(c, k) for c, k in steps)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        beside: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            beside.append(x)
        beside.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([beside.pop(), up(x)], 1))
        return self.head(x)


# --- what is measured


@dataclass(frozen=True)
class Network:
    """A network with the images it is fed; U-Net's output is a map of classes, the others' a row."""

    make: Callable[[], nn.Module]
    size: int
    batch: int
    classes: int = 1000
    published: int | None = None  # parameters with 1000 classes
    dense: bool = False

    def inputs(self, batch: int, size: int, device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Random images and labels."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, size, size, generator=generator)
        shape = (batch, size, size) if self.dense else (batch,)
        labels = torch.randint(self.classes, shape, generator=generator)
        return images.to(device).contiguous(memory_format=torch.channels_last), labels.to(device)


NETWORKS: dict[str, Network] = OrderedDict(
    resnet50=Network(resnet50, 224, 128, published=25_557_032),
    mobilenet_v2=Network(mobilenet_v2, 224, 128, published=3_504_872),
    convnext_tiny=Network(convnext_tiny, 224, 64, published=28_589_128),
    unet=Network(UNet, 512, 8, classes=2, dense=True),
)
