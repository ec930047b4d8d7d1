"""What the examples share: their flags, the digits, a training loop, and the end: an example that does not show what
it says it shows fails."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def arguments(about: str | None, epochs: int, **more: dict) -> argparse.Namespace:
    """The flags of every example, and `more` of its own: name to options of add_argument."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="default: the GPU if there is one (%(default)s)")
    parser.add_argument("--epochs", type=int, default=epochs, help="passes over the data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the start and of the batches' order (default: 0)")
    for name, options in more.items():
        parser.add_argument(f"--{name}", **options)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    return given


class Digits:
    """The 1,797 handwritten digits of 8x8 that scikit-learn ships, a fifth held back, enlarged to size x size."""

    def __init__(self, device: str, size: int = 8) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
        images = images if size == 8 else F.interpolate(images, (size, size), mode="bilinear")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        images, labels = images[order].to(device), torch.tensor(digits.target)[order].to(device)
        held = len(images) // 5
        self.held_images, self.held_labels = images[:held], labels[:held]
        self.images, self.labels = images[held:], labels[held:]

    def of(self, *wanted: int) -> Digits:
        """Those of some classes, numbered anew from 0."""
        part = object.__new__(Digits)
        for images, labels in (("images", "labels"), ("held_images", "held_labels")):
            keep = torch.isin(getattr(self, labels), torch.tensor(wanted, device=self.labels.device))
            setattr(part, images, getattr(self, images)[keep])
            setattr(part, labels, torch.stack([getattr(self, labels)[keep] == w for w in wanted]).int().argmax(0))
        return part

    def first(self, count: int) -> Digits:
        """Only so many to train on."""
        part = object.__new__(Digits)
        part.__dict__.update(self.__dict__, images=self.images[:count], labels=self.labels[:count])
        return part

    def batches(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in torch.randperm(len(self.images), device=self.images.device).split(size):
            yield self.images[batch], self.labels[batch]

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Of the digits held back, the share that is recognised."""
        return (model.eval()(self.held_images).argmax(1) == self.held_labels).float().mean().item()


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels)


def fit(
    model: nn.Module,
    data: Digits,
    epochs: int,
    rate: float = 0.003,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = cross_entropy,
    after_step: Callable[[], None] = lambda: None,
) -> list[float]:
    """Trains what of the model is to be trained; the mean loss of each epoch."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    means = []
    for _ in range(epochs):
        model.train()
        losses = []
        for images, labels in data.batches():
            optimizer.zero_grad()
            value = loss(model, images, labels)
            value.backward()
            optimizer.step()
            after_step()
            losses.append(value.detach())
        means.append(torch.stack(losses).mean().item())
    return means


def require(what: str, so: bool) -> None:
    """Says what was to be shown; ends the example with code 1 where it is not so."""
    print(f"{'ok ' if so else 'NOT'} {what}")
    if not so:
        raise SystemExit(1)
