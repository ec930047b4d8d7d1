"""Trains a U-Net to find discs in noise, pixel by pixel.

Its masks must overlap the true ones by 75 % (intersection over union) on images that it has not seen, and by
more than any threshold of single pixels does.

python examples/segment.py --images 2000 --size 64
"""

from __future__ import annotations

import torch
from common import arguments, require
from networks import conv
from torch import Tensor, nn
from torch.nn import functional as F

from cnnkernels import nn as cnn

FLOOR = 0.75


class UNet(nn.Module):
    """Ronneberger et al., 2015: down by pools, up by transposed convolutions, with a connection across at each size."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(1, channels), conv(channels, 2 * channels)])
        self.bottom = conv(2 * channels, 4 * channels)
        self.pool = cnn.MaxPool2d(2)
        self.up = nn.ModuleList([
            cnn.ConvTranspose2d(4 * channels, 2 * channels, 2, 2), cnn.ConvTranspose2d(2 * channels, channels, 2, 2)
        ])  # fmt: skip
        self.join = nn.ModuleList([conv(4 * channels, 2 * channels), conv(2 * channels, channels)])
        self.scores = cnn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = []
        for layer in self.down:
            across.append(x := layer(x))
            x = self.pool(x)
        x = self.bottom(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([across.pop(), up(x)], 1))
        return self.scores(x)


def scenes(count: int, size: int, device: str) -> tuple[Tensor, Tensor]:
    """Images of a disc in noise, and where the disc is."""
    at = torch.arange(size, device=device).float()
    centre = torch.rand(count, 2, 1, device=device) * size
    radius = size * (0.15 + 0.1 * torch.rand(count, 1, 1, device=device))
    rows, columns = (at - centre[:, 0])[:, :, None], (at - centre[:, 1])[:, None, :]
    disc = (rows**2 + columns**2 < radius**2).float()
    return (disc + 0.5 * torch.randn(count, size, size, device=device))[:, None], disc[:, None]


def overlap(found: Tensor, masks: Tensor) -> float:
    return ((found & (masks > 0)).sum() / (found | (masks > 0)).sum()).item()


def main() -> None:
    images = {"type": int, "default": 384, "help": "to train on (default: 384)"}
    side = {"type": int, "default": 32, "help": "of an image, a multiple of 4 (default: 32)"}
    given = arguments(__doc__, epochs=3, images=images, size=side)
    x, masks = scenes(given.images, given.size, given.device)
    model = UNet().to(given.device)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for epoch in range(given.epochs):
        losses = []
        for batch in torch.randperm(given.images, device=given.device).split(16):
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(model(x[batch]), masks[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}")
    x, masks = scenes(128, given.size, given.device)
    with torch.no_grad():
        found = model.eval()(x) > 0
    by_pixel = max(overlap(x > threshold, masks) for threshold in (0.5, 0.75, 1.0, 1.25))
    by_network = overlap(found, masks)
    print(f"a threshold of pixels overlaps by {by_pixel:.1%}")
    require(f"the network by {by_network:.1%}, at least {FLOOR:.0%}", by_network >= max(FLOOR, by_pixel))


if __name__ == "__main__":
    main()
