"""Fine-tuning in two stages: a network that knows the digits 0 to 4 learns 5 to 9 from 60 images.

First its new head alone is trained, with all else frozen, then everything with small steps. It must recognise more of
the digits held back than the same network trained on those 60 images from the start, and no less after the second
stage than 3 points below the first.

python examples/fine_tune.py --images 100
"""

from __future__ import annotations

from common import Digits, arguments, fit, require
from networks import CLASSES, resnet
from torch import nn


def main() -> None:
    images = {"type": int, "default": 60, "help": "of the new digits (default: 60)"}
    given = arguments(__doc__, epochs=3, images=images)
    digits = Digits(given.device, size=16)
    new = digits.of(5, 6, 7, 8, 9).first(given.images)
    steps = 6 * given.epochs

    model = resnet(8).to(given.device)
    fit(model, digits.of(0, 1, 2, 3, 4), given.epochs, rate=0.005)
    *body, head = model
    head[-1] = nn.Linear(head[-1].in_features, CLASSES).to(given.device)
    for layer in body:
        layer.requires_grad_(False)
    fit(model, new, steps, rate=0.02)
    first = new.accuracy(model)
    model.requires_grad_(True)
    fit(model, new, steps, rate=0.001)
    second = new.accuracy(model)

    scratch = resnet(8).to(given.device)
    fit(scratch, new, 2 * steps, rate=0.005)
    alone = new.accuracy(scratch)
    print(f"head alone {first:.1%}, then all {second:.1%}; from the start {alone:.1%}")
    require("the second stage lost no more than 3 points", second >= first - 0.03)
    require("who knew other digits is better", second > alone)


if __name__ == "__main__":
    main()
