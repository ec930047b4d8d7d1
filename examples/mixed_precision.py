"""Automatic mixed precision and gradient accumulation.

The gradients of four quarters of a batch, added up, are those of the whole batch but for rounding: as close to the
whole's in fp64 as its own in fp32 are, within a factor of four. Under autocast convolutions are
bf16 while parameters stay fp32, and the loss falls to less than half.

python examples/mixed_precision.py --dtype float16
"""

from __future__ import annotations

import copy

import torch
from common import Digits, arguments, cross_entropy, require
from networks import lenet
from torch import nn

PARTS = 4


def gradient(model: nn.Module, digits: Digits, parts: int, dtype: torch.dtype) -> torch.Tensor:
    """Of the first 128 digits' mean loss, in so many parts."""
    model = copy.deepcopy(model).to(dtype)
    pairs = digits.images[:128].to(dtype).chunk(parts), digits.labels[:128].chunk(parts)
    for images, labels in zip(*pairs, strict=True):
        (cross_entropy(model, images, labels) / parts).backward()  # means of parts, whose mean is the whole's
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double()


def main() -> None:
    dtype = {"choices": ("bfloat16", "float16"), "default": "bfloat16", "help": "of products (default: bfloat16)"}
    given = arguments(__doc__, epochs=4, dtype=dtype)
    digits = Digits(given.device, size=16)
    model = lenet().to(given.device)

    exact = gradient(model, digits, 1, torch.float64)
    whole, parts = ((gradient(model, digits, n, torch.float32) - exact).norm().item() for n in (1, PARTS))
    require(f"accumulated, the gradient is off by {parts:.1e}, whole by {whole:.1e}", parts <= 4 * whole)

    narrow = getattr(torch, given.dtype)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    scaler = torch.amp.GradScaler(given.device, enabled=narrow == torch.float16)  # fp16's small numbers become 0
    means = []
    for _ in range(given.epochs):
        losses = []
        for number, (images, labels) in enumerate(digits.batches(32), 1):
            with torch.autocast(given.device, narrow):
                scores = model(images)
                loss = nn.functional.cross_entropy(scores.float(), labels)
            scaler.scale(loss / 2).backward()
            losses.append(loss.item())
            if number % 2 == 0:  # two batches a step
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        means.append(sum(losses) / len(losses))
    require(f"scores are {given.dtype}", scores.dtype == narrow)
    require("parameters are float32", all(p.dtype == torch.float32 for p in model.parameters()))
    require(f"the loss fell from {means[0]:.2f} to {means[-1]:.2f}, less than half", means[-1] < means[0] / 2)


if __name__ == "__main__":
    main()
