"""Trains LeNet, AlexNet, VGG, an Inception network, ResNet and MobileNet, all small, on handwritten digits.

Each must recognise 85 % of the digits held back after the default four epochs, and end with half of the loss that it
began with.

python examples/classify.py --network resnet --epochs 10
"""

from __future__ import annotations

from common import Digits, arguments, fit, require
from networks import NETWORKS, size

FLOOR = 0.85


def main() -> None:
    networks = {"choices": NETWORKS, "action": "append", "help": "only this one (may be repeated; default: all)"}
    given = arguments(__doc__, epochs=4, network=networks)
    digits = Digits(given.device, size=16)
    for name in given.network or NETWORKS:
        model = NETWORKS[name]().to(given.device)
        losses = fit(model, digits, given.epochs, rate=0.005)
        accuracy = digits.accuracy(model)
        print(f"{name}: {size(model)} parameters, loss {' '.join(f'{loss:.3f}' for loss in losses)}")
        require(f"{name} recognises {accuracy:.1%}, at least {FLOOR:.0%}", accuracy >= FLOOR)
        require("its loss fell to less than half", losses[-1] < losses[0] / 2)


if __name__ == "__main__":
    main()
