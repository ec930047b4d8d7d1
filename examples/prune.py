"""Magnitude pruning with torch.nn.utils.prune: the smallest 70 % of weights become zero, the rest is trained on.

After that it must recognise digits as well as before, but for 2 points, with zeros where they were put.

python examples/prune.py --share 0.8
"""

from __future__ import annotations

from common import Digits, arguments, fit, require
from networks import vgg
from torch import nn
from torch.nn.utils import prune


def main() -> None:
    share = {"type": float, "default": 0.7, "help": "of the weights that go (default: 0.7)"}
    given = arguments(__doc__, epochs=3, share=share)
    digits = Digits(given.device, size=16)
    model = vgg().to(given.device)
    fit(model, digits, given.epochs + 1, rate=0.005)
    before = digits.accuracy(model)

    pruned = [(layer, "weight") for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(pruned, prune.L1Unstructured, amount=given.share)
    at_once = digits.accuracy(model)
    fit(model, digits, given.epochs, rate=0.005)
    for layer, name in pruned:
        prune.remove(layer, name)  # weight = weight_orig * weight_mask, a parameter again
    after = digits.accuracy(model)
    zeros = sum((layer.weight == 0).sum().item() for layer, _ in pruned)
    found = zeros / sum(layer.weight.numel() for layer, _ in pruned)
    print(f"before {before:.1%}, pruned {at_once:.1%}, trained on {after:.1%}")
    require(f"{found:.1%} of the weights are zero, {given.share:.0%} were to be", abs(found - given.share) < 0.001)
    require("it lost no more than 2 points", after >= before - 0.02)


if __name__ == "__main__":
    main()
