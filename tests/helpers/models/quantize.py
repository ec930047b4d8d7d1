"""Small models as they are written, for the tests of quantization, and what is asked of the quantized ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import Quantization


def trained(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """In eval, with weights, statistics and affine maps as training would leave them, of either sign."""
    generator = torch.Generator().manual_seed(0)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not isinstance(module.weight, nn.UninitializedParameter):
            bound = (3 / module.weight[0].numel()) ** 0.5
            module.weight.data = uniform(module.weight, -bound, bound)
            if module.bias is not None:
                module.bias.data = uniform(module.bias, -0.2, 0.2)
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            module.running_mean, module.running_var = uniform(module.bias, -0.2, 0.2), uniform(module.bias, 0.3, 1.5)
            module.weight.data, module.bias.data = uniform(module.bias, 0.6, 1.4), uniform(module.bias, -0.3, 0.6)
            module.weight.data[0] *= -1
    return model.to(dtype).eval()


def images(channels: int = 3, batch: int = 4, size: int = 12, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def conv_norm(c: int, k: int, size: int = 3, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU):
    layers = [nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(k)]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class BasicBlock(nn.Module):
    """ResNet's block, written as its authors' implementations are: one ReLU called twice, in place, `+=`."""

    def __init__(self, c: int, k: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k)
        self.conv2, self.bn2 = nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv_norm(c, k, 1, stride, act=None) if stride > 1 or c != k else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = BasicBlock(8, 8), BasicBlock(8, 16, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.pool(self.stem(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: no activation behind the sum."""

    def __init__(self, c: int, k: int, stride: int, expand: int) -> None:
        super().__init__()
        self.skips, hidden = stride == 1 and c == k, c * expand
        self.conv = nn.Sequential(
            conv_norm(c, hidden, 1, act=nn.ReLU6),
            conv_norm(hidden, hidden, 3, stride, hidden, act=nn.ReLU6),
            nn.Conv2d(hidden, k, 1, bias=False),
            nn.BatchNorm2d(k),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skips else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = InvertedResidual(8, 8, 1, 3), InvertedResidual(8, 12, 2, 3), InvertedResidual(12, 12, 1, 2)
        self.features = nn.Sequential(conv_norm(3, 8, 3, 2, act=nn.ReLU6), *blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1)).view(x.size(0), -1)
        return self.classifier(x)


class Functional(nn.Module):
    """All but the layers with weights called as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(54, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.first(x), inplace=True), 2)
        x = F.avg_pool2d(F.leaky_relu(self.second(x), 0.2), 2, stride=1).relu()
        x = F.dropout(x[:, :, :3, :3], 0.5, self.training)
        return self.last(x.reshape(x.shape[0], -1))


class Pools(nn.Module):
    """Everything that carries INT8 from layer to layer, and linear layers with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)),
            *(nn.Conv2d(6, 6, 3, padding=1), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.ReLU(), nn.Identity()),
            *(nn.Conv2d(6, 8, 1), nn.AvgPool2d(2), nn.Dropout2d(0.1), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU6(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).contiguous())


class Twice(nn.Module):
    """A layer called twice, with a range of its own at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.conv(x)) * 4)


class Branches(nn.Module):
    """A value read by INT8, by a float operation and by the caller; a layer of a kind that has no INT8 kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.relu(self.first(x))
        return self.up(torch.cat([first, self.second(first)], 1)), first


class Untraceable(nn.Module):
    """Looks at values; calls a block, a layer, and what it has in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.conv = conv_norm(3, 6), nn.Conv2d(6, 6, 3)
        self.layers = nn.ModuleList([nn.Conv2d(6, 6, 1), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.block(x))
        for layer in self.layers:
            x = layer(x)
        return x if x.sum() > -1e9 else -x


def count(model: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(isinstance(module, kinds) for module in model.modules())


def outputs(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = model(x)
    return result if isinstance(result, tuple) else (result,)


def close(result: Quantization, model: nn.Module, x: Tensor, decibels: float = 30.0) -> None:
    """Every value of the model, and what it returns, is near the float model's."""
    noise = result.signal_to_noise(x)
    assert noise and all(n.decibels > decibels for n in noise), noise
    for got, expected in zip(outputs(result.model, x), outputs(model, x), strict=True):
        assert got.dtype is expected.dtype and got.shape == expected.shape
        assert (got - expected).norm() <= 10 ** (-decibels / 20) * expected.norm()


class Net(nn.Module):
    """Two convolutions, a batch norm, a linear layer, and the code between them."""

    def __init__(self, code: Callable[[Any, Tensor], Tensor], channels: int = 2) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.b, self.l, self.code = nn.BatchNorm2d(channels), nn.Linear(channels, channels), code

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def distance(got: Tensor, expected: Tensor) -> float:
    """Relative to what is expected."""
    return float((got - expected).norm() / expected.norm())


def output(model: nn.Module, *args: Any) -> Tensor:
    with torch.no_grad():
        return model(*(a.clone() if isinstance(a, Tensor) else a for a in args))
