"""A ResNet in INT8: quantized after training, and trained with INT8's rounding.

Neither may recognise more than 2 points fewer digits than the float network; the INT8 network must be a third of the
float one's size or less, and give the scores that the network trained with INT8's rounding gave, to the bit.

python examples/quantize.py
"""

from __future__ import annotations

import torch
from common import Digits, arguments, fit, require
from networks import resnet

import cnnkernels

LOST = 0.02


def main() -> None:
    given = arguments(__doc__, epochs=4)
    digits = Digits(given.device, size=16)
    model = resnet(8).to(given.device)
    fit(model, digits, given.epochs, rate=0.005)
    exact = digits.accuracy(model)

    result = cnnkernels.quantize(model.eval(), digits.images[:256])
    print(result)
    after = digits.accuracy(result.model)
    require(f"after training: {after:.1%}, in float {exact:.1%}", after >= exact - LOST)
    require("it is a third of the size or less", 3 * result.int8_bytes <= result.float_bytes)

    prepared = cnnkernels.prepare_qat(model.train(), digits.images[:64])
    fit(prepared, digits, 1, rate=0.0005)
    prepared.eval()
    with torch.no_grad():
        simulated = prepared(digits.held_images)
        converted = cnnkernels.convert_qat(prepared)
        scores = converted.model(digits.held_images)
    trained = (scores.argmax(1) == digits.held_labels).float().mean().item()
    require(f"in training: {trained:.1%}", trained >= exact - LOST)
    require("INT8's scores are those of its training, to the bit", torch.equal(scores, simulated))


if __name__ == "__main__":
    main()
