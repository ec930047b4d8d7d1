"""Forecasts a series with dilated causal convolutions of one axis, which see the past alone.

The series is a sum of two periods and a random walk's steps, and the forecast's error must be at most 60 % of that of
"as it is now". That no step sees its future is checked by its gradient.

python examples/forecast.py --epochs 50 --length 20000
"""

from __future__ import annotations

import torch
from common import arguments, require
from torch import Tensor, nn
from torch.nn import functional as F

from cnnkernels import functional as C
from cnnkernels import nn as cnn

SHARE = 0.6


class Causal(nn.Module):
    """A residual layer whose padding is all before the first step (van den Oord et al., WaveNet, 2016)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = cnn.Conv1d(channels, channels, 3, dilation=dilation)
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        taps = self.conv.weight, self.conv.bias
        return x + F.relu(C.conv1d(x, *taps, dilation=self.dilation, padding="causal"))


def network(channels: int = 16) -> nn.Module:
    """Sees 1 + 2·(1 + 2 + 4 + 8) = 31 steps."""
    layers = [Causal(channels, dilation) for dilation in (1, 2, 4, 8)]
    return nn.Sequential(cnn.Conv1d(1, channels, 1), *layers, cnn.Conv1d(channels, 1, 1))


def series(length: int, device: str) -> Tensor:
    t = torch.arange(length, device=device).float()
    wave = torch.sin(t / 3.5) + 0.5 * torch.sin(t / 1.3)
    return wave + torch.cumsum(0.02 * torch.randn(length, device=device), 0)


def main() -> None:
    length = {"type": int, "default": 4096, "help": "steps of the series, a quarter held back (default: 4096)"}
    given = arguments(__doc__, epochs=120, length=length)
    values = series(given.length, given.device)
    train, held = values[: 3 * given.length // 4], values[3 * given.length // 4 :]
    windows = train[: len(train) // 128 * 128].view(-1, 1, 128)
    model = network().to(given.device)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(given.epochs):
        optimizer.zero_grad()
        # what it says is how much the next step differs from this one
        loss = F.mse_loss(model(windows)[..., :-1], windows.diff(dim=-1))
        loss.backward()
        optimizer.step()

    x = held.view(1, 1, -1).clone().requires_grad_()
    said = model(x)
    (future,) = torch.autograd.grad(said[..., 100].sum(), x)
    require("step 100 sees no step after it", not future[..., 101:].any() and bool(future[..., 100].any()))
    error = (said[..., :-1] - held.diff()).detach().square().mean().sqrt().item()
    naive = held.diff().square().mean().sqrt().item()
    require(f"its error is {error:.3f}, at most 60 % of {naive:.3f}, as it is now", error <= SHARE * naive)


if __name__ == "__main__":
    main()
