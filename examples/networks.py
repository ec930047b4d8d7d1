"""Small networks of the well-known families, on the kernels of this library: ten scores for a digit of 16x16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnnkernels import nn as cnn

CLASSES = 10


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    layer = cnn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def head(channels: int) -> nn.Sequential:
    """The mean of each channel, and scores of it."""
    return nn.Sequential(cnn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def lenet() -> nn.Module:
    """LeCun et al., 1998: two convolutions of 5x5 with pools, three linear layers; with ReLU and max-pool."""
    return nn.Sequential(
        cnn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), cnn.MaxPool2d(2),
        cnn.Conv2d(6, 16, 5), nn.ReLU(), cnn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * 2 * 2, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def alexnet() -> nn.Module:
    """Krizhevsky et al., 2012, narrower: a large filter first, overlapping pools, dropout before the linear layers."""
    return nn.Sequential(
        cnn.Conv2d(1, 24, 5, padding=2), nn.ReLU(), cnn.MaxPool2d(3, 2),
        cnn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), cnn.MaxPool2d(3, 2),
        cnn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(48 * 3 * 3, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, CLASSES),
    )  # fmt: skip


def vgg() -> nn.Module:
    """Simonyan and Zisserman, 2014: nothing but 3x3, and twice the channels where sides halve."""
    return nn.Sequential(
        conv(1, 16), conv(16, 16), cnn.MaxPool2d(2), conv(16, 32), conv(32, 32), cnn.MaxPool2d(2), head(32)
    )


class Inception(nn.Module):
    """Szegedy et al., 2014: 1x1, 3x3, 5x5 and a pool side by side, concatenated."""

    def __init__(self, inputs: int, each: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([
            conv(inputs, each, 1),
            nn.Sequential(conv(inputs, each // 2, 1), conv(each // 2, each, 3)),
            nn.Sequential(conv(inputs, each // 2, 1), conv(each // 2, each, 5)),
            nn.Sequential(cnn.MaxPool2d(3, 1, 1), conv(inputs, each, 1)),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception() -> nn.Module:
    return nn.Sequential(conv(1, 16), cnn.MaxPool2d(2), Inception(16, 8), cnn.MaxPool2d(2), Inception(32, 12), head(48))


class Residual(nn.Module):
    """He et al., 2015: x + f(x), and where the size changes, a 1x1 on the way across."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        last = cnn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride), last, nn.BatchNorm2d(outputs))
        same = inputs == outputs and stride == 1
        across = cnn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.across = nn.Identity() if same else nn.Sequential(across, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.across(x))


def resnet(channels: int = 16) -> nn.Module:
    wide = 2 * channels
    return nn.Sequential(
        conv(1, channels),
        Residual(channels, channels),
        Residual(channels, wide, 2),
        Residual(wide, wide, 2),
        head(wide),
    )


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Howard et al., 2017: a filter for each channel, then 1x1, each with batch norm and ReLU."""
    depthwise = cnn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(inputs), nn.ReLU(), conv(inputs, outputs, 1))


def mobilenet() -> nn.Module:
    return nn.Sequential(conv(1, 16), separable(16, 32, 2), separable(32, 32), separable(32, 64, 2), head(64))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet, "alexnet": alexnet, "vgg": vgg, "inception": inception, "resnet": resnet, "mobilenet": mobilenet,
}  # fmt: skip


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
