"""Trains a DCGAN (Radford et al., 2015) to draw handwritten digits of 8x8.

A generator is judged by how far its drawings are from digits as a distribution: the Fréchet distance between the two,
each taken for a normal distribution of its pixels. It must fall to a third of what an untrained generator's is.

python examples/generate.py --epochs 200 --picture drawn.png
"""

from __future__ import annotations

import torch
from common import Digits, arguments, require
from torch import Tensor, nn
from torch.nn import functional as F

from cnnkernels import nn as cnn

NOISE = 16
SHARE = 1 / 3


def generator(channels: int = 16) -> nn.Module:
    return nn.Sequential(
        cnn.ConvTranspose2d(NOISE, channels, 4), nn.BatchNorm2d(channels), nn.ReLU(),
        cnn.ConvTranspose2d(channels, channels, 4, 2, 1), nn.BatchNorm2d(channels), nn.ReLU(),
        cnn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip


def discriminator(channels: int = 16) -> nn.Module:
    """Strides instead of pools, leaky ReLU; dropout keeps it from learning 1,437 digits by heart."""
    return nn.Sequential(
        cnn.Conv2d(1, channels, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25),
        cnn.Conv2d(channels, 2 * channels, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25),
        nn.Flatten(), nn.Linear(2 * channels * 4, 1),
    )  # fmt: skip


def distance(a: Tensor, b: Tensor) -> float:
    """Fréchet's, of two normal distributions: |mean - mean|² + tr(A + B - 2 sqrt(AB))."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0)
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * values.sqrt().sum()).item()


def main() -> None:
    picture = {"metavar": "FILE", "help": "of 64 drawings"}
    given = arguments(__doc__, epochs=10, picture=picture)
    digits = Digits(given.device)
    draws, judges = generator().to(given.device), discriminator().to(given.device)
    options = {"lr": 0.002, "betas": (0.5, 0.999)}
    of_draws = torch.optim.Adam(draws.parameters(), **options)
    of_judges = torch.optim.Adam(judges.parameters(), **options)
    seen = torch.randn(512, NOISE, 1, 1, device=given.device)
    with torch.no_grad():
        first = distance(draws(seen), digits.held_images)
    for _ in range(given.epochs):
        for images, _ in digits.batches():
            drawn = draws(torch.randn(len(images), NOISE, 1, 1, device=given.device))
            scores = judges(torch.cat([images, drawn.detach()]))
            real = (torch.arange(len(scores), device=given.device) < len(images)).float()[:, None]
            of_judges.zero_grad()
            F.binary_cross_entropy_with_logits(scores, 0.9 * real).backward()
            of_judges.step()
            of_draws.zero_grad()
            F.softplus(-judges(drawn)).mean().backward()
            of_draws.step()
    with torch.no_grad():
        drawn = draws(seen)
    last = distance(drawn, digits.held_images)
    if given.picture:
        from matplotlib import pyplot

        sheet = drawn[:64, 0].view(8, 8, 8, 8).transpose(1, 2).reshape(64, 64).cpu()
        pyplot.imsave(given.picture, sheet, cmap="gray")
    require(f"the distance to digits fell from {first:.1f} to {last:.1f}, to a third or less", last <= SHARE * first)


if __name__ == "__main__":
    main()
